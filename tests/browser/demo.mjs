// The demo page as a person uses it: opens it, presses start, waits until it says that it is connected, presses stop.
//   url, transport: "webrtc" | "websocket"; fleet: whether the page is to say which worker serves the call;
//   moves: whether the call is to go on at another worker, once something has happened to the first
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
  if (options.moves) {
    const first = await page.textContent("#stat-worker");
    report("served", { worker: first });
    const elsewhere = (name) => document.querySelector("#state").dataset.state === "connected" && document.querySelector("#stat-worker").textContent !== name;
    await page.waitForFunction(elsewhere, first, { timeout: 90000 });
    // The beep of the next second comes back from there.
    await page.waitForFunction(() => Number(document.querySelector("#level-out").getAttribute("aria-valuenow")) > -40, null, { timeout: 20000 });
    const kinds = await page.evaluate(() => [...document.querySelectorAll("#messages li")].map(({ dataset }) => `${dataset.from} ${dataset.kind}`));
    report("moved", { worker: await page.textContent("#stat-worker"), kinds });
  }
  const worker = await page.evaluate(() => (document.querySelector("#row-worker").hidden ? null : document.querySelector("#stat-worker").textContent));
  const steps = await page.evaluate(() => [...document.querySelectorAll("#steps li:not([hidden])")].map(({ dataset }) => `${dataset.step} ${dataset.status}`));
  await page.click("#start");
  await page.waitForFunction(() => document.querySelector("#state").dataset.state !== "connected", null, { timeout: 10000 });
  report("stopped", { state: await page.getAttribute("#state", "data-state"), steps, worker, foreign, broken });
  report("done");
  await gone;
});
