// A real Chromium with an empty profile, and the line protocol of the harness (tests/src/script.rs).
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";

// The packages live outside the checkout, where `import` does not look.
const require = createRequire(`${process.env.STREAMFLEET_TEST_NODE_MODULES}/`);
const { chromium } = require("playwright-core");

export const options = JSON.parse(process.argv[2]);

export function report(event, fields = {}) {
  process.stdout.write(`${JSON.stringify({ event, ...fields })}\n`);
}

// The harness closes standard input when it has seen enough.
export function dismissed() {
  return new Promise((resolve) => process.stdin.on("end", resolve).on("error", resolve).resume());
}

// plain: candidates with addresses, as a page with microphone permission has them; hidden: `.local` names, as one without.
// microphone_file: a WAV file that the fake microphone plays again and again, instead of its beeps.
// trusted_key: base64 of the SHA-256 of a public key whose certificates are believed, also that of a TURN server.
function flags({ addresses = "plain", microphone_file, trusted_key }) {
  return [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--autoplay-policy=no-user-gesture-required",
    // Without it a machine that has only the loopback interface has no candidate at all.
    "--allow-loopback-in-peer-connection",
    ...(addresses === "plain" ? ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"] : []),
    ...(trusted_key ? [`--ignore-certificate-errors-spki-list=${trusted_key}`] : []),
    ...(microphone_file ? [`--use-file-for-fake-audio-capture=${microphone_file}`] : []),
  ];
}

// Runs `test(page)` and exits 0, or reports `failed` and exits 1. Before the browser starts, `prepare(folder)` may write
// what it needs into a folder that goes with it.
export async function withPage(test, prepare = async () => {}) {
  const folder = await mkdtemp(join(tmpdir(), "streamfleet-browser-"));
  let context;
  try {
    await prepare(folder);
    context = await chromium.launchPersistentContext(join(folder, "profile"), {
      executablePath: process.env.STREAMFLEET_TEST_CHROMIUM,
      headless: true,
      args: flags(options),
      ignoreHTTPSErrors: true,
      bypassCSP: options.policy === "none",
    });
    const page = context.pages()[0] ?? (await context.newPage());
    page.on("console", (message) => process.stderr.write(`page: ${message.text()}\n`));
    page.on("pageerror", (error) => process.stderr.write(`page: ${error.stack}\n`));
    await test(page);
  } catch (error) {
    report("failed", { error: String(error?.stack ?? error) });
    process.exitCode = 1;
  } finally {
    await context?.close();
    await rm(folder, { recursive: true, force: true, maxRetries: 5 });
  }
  process.exit();
}

// An empty page on the server's own origin, with `client` of page.js in it.
export async function emptyPage(page, url) {
  const blank = new URL("/empty-page-of-the-tests", url).href;
  await page.route(blank, (route) => route.fulfill({ contentType: "text/html", body: "<!doctype html><title>test</title>" }));
  await page.addInitScript({ path: fileURLToPath(new URL("page.js", import.meta.url)) });
  await page.goto(blank);
}
