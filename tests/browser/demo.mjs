// The demo page as a person uses it: opens it, presses start, waits until it says that it is connected, presses stop.
//   url, transport: "webrtc" | "websocket"; fleet: whether the page is to say which worker serves the call
import { dismissed, options, report, withPage } from "./chromium.mjs";

await withPage(async (page) => {
  const gone = dismissed();
  const foreign = [];
  const broken = [];
  page.on("request", (request) => {
    const at = new URL(request.url());
    if (at.protocol !== "data:" && at.protocol !== "blob:" && at.origin !== new URL(options.url).origin) foreign.push(request.url());
  });
  page.on("websocket", (socket) => new URL(socket.url()).host === new URL(options.url).host || foreign.push(socket.url()));
  page.on("response", (response) => response.status() >= 400 && broken.push(`${response.status()} ${response.url()}`));
  page.on("pageerror", (error) => broken.push(String(error)));
  await page.goto(`${options.url}/?transport=${options.transport}`);
  report("opened", { title: await page.title(), state: await page.getAttribute("#state", "data-state") });
  await page.click("#start");
  await page.waitForFunction(() => document.querySelector("#state").dataset.state === "connected", null, { timeout: 20000 });
  report("connected");
  // Media, not only a connection: the fake microphone beeps once a second.
  await page.waitForFunction(() => document.querySelector("[data-step=media]").dataset.status === "done" && Number(document.querySelector("#level-out").getAttribute("aria-valuenow")) > -40, null, { timeout: 20000 });
  if (options.fleet) await page.waitForFunction(() => !document.querySelector("#row-worker").hidden, null, { timeout: 20000 });
  const worker = await page.evaluate(() => (document.querySelector("#row-worker").hidden ? null : document.querySelector("#stat-worker").textContent));
  const steps = await page.evaluate(() => [...document.querySelectorAll("#steps li:not([hidden])")].map(({ dataset }) => `${dataset.step} ${dataset.status}`));
  await page.click("#start");
  await page.waitForFunction(() => document.querySelector("#state").dataset.state !== "connected", null, { timeout: 10000 });
  report("stopped", { state: await page.getAttribute("#state", "data-state"), steps, worker, foreign, broken });
  report("done");
  await gone;
});
