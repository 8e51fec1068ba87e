// The demo page as a person uses it: opens it, presses start, waits until it says that it is connected, presses stop.
//   url
import { dismissed, options, report, withPage } from "./chromium.mjs";

await withPage(async (page) => {
  const gone = dismissed();
  const foreign = [];
  const broken = [];
  page.on("request", (request) => {
    const at = new URL(request.url());
    if (at.protocol !== "data:" && at.protocol !== "blob:" && at.origin !== new URL(options.url).origin) foreign.push(request.url());
  });
  page.on("response", (response) => response.status() >= 400 && broken.push(`${response.status()} ${response.url()}`));
  page.on("pageerror", (error) => broken.push(String(error)));
  await page.goto(options.url);
  report("opened", { title: await page.title(), state: await page.getAttribute("#state", "data-state") });
  await page.click("#start");
  await page.waitForFunction(() => document.querySelector("#state").dataset.state === "connected", null, { timeout: 20000 });
  report("connected");
  // Media, not only a connection: the fake microphone beeps once a second, and the page's own statistics come from getStats.
  await page.waitForTimeout(3000);
  const level = await page.evaluate(() => {
    const meter = document.querySelector("#level-out");
    return { value: meter.getAttribute("aria-valuenow") ?? meter.dataset.level ?? meter.value ?? null, text: meter.textContent.trim() };
  });
  await page.click("#start");
  await page.waitForFunction(() => document.querySelector("#state").dataset.state !== "connected", null, { timeout: 10000 });
  report("stopped", { state: await page.getAttribute("#state", "data-state"), level, foreign, broken });
  report("done");
  await gone;
});
