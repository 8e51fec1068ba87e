// One call: connects, then does what the options ask for, in this order, and reports each result as an event.
//   url, id, shape: "complete" | "trickle" | "none", addresses: "plain" | "hidden"
//   relay_only: by the TURN servers that the service names, and no other way
//   tones: [Hz], video: "VP8" | "H264" with colours: [[r, g, b]], messages: [text], await_end: ms,
//   hang_up: true closes the connection as a page does; else the browser is closed with it open
import { dismissed, emptyPage, options, report, withPage } from "./chromium.mjs";

await withPage(async (page) => {
  const { url, id, shape, relay_only = false, tones = [], video = null, colours = [], messages = [], await_end = 0, hang_up = false } = options;
  const gone = dismissed();
  await emptyPage(page, url);
  report("connected", await page.evaluate((how) => client.connect(how), { url, id, shape, audio: true, video, relay_only }));
  for (const hz of tones) report("tone", await page.evaluate((hz) => client.tone(hz), hz));
  for (const colour of colours) report("colour", await page.evaluate((colour) => client.show(colour), colour));
  for (const text of messages) report("message", { sent: text, received: await page.evaluate((text) => client.say(text), text) });
  report("inbound", await page.evaluate(() => client.inbound()));
  if (await_end) report("ended", await page.evaluate((limit) => client.closed(limit), await_end));
  report("done");
  await gone;
  if (hang_up) await page.evaluate(() => call.pc.close());
});
