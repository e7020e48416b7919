// Several rooms in one tab: what is unread in them, the way back, and a long past.

import WebSocket from "ws";
import { Chat } from "../../../src/http/client/client.js";
import { DESKTOP, PHONE } from "../user.mjs";

const MANY = 1_000;
/** Messages that the page holds of a room: at its end, and while the older ones are read. */
const [KEPT, HELD] = [500, 2_000];

export default async function rooms({ base, check, equal, open, room }) {
  const [red, blue] = [`${room}.red`, `${room}.blue`];
  const alice = await open("Alice", DESKTOP, red);
  const bob = await open("Bob", DESKTOP, red);
  for (const user of [alice, bob]) await user.isIn(red);

  await check("a room is joined, and rooms are apart", async () => {
    await bob.page.fill("#join-room", `#${blue}`);
    await bob.page.press("#join-room", "Enter");
    await bob.isIn(blue);
    equal(await bob.texts(), [], "messages in the new room");
    await bob.shows("#empty", /Say hello/);
    await bob.say("Anyone here?");
    await bob.sees("Anyone here?");
    await bob.axe();
    equal(await bob.page.locator("#rooms a").allTextContents(), ["#lobby", `#${red}`, `#${blue}`], "rooms");
  });

  await check("what comes in other rooms is counted, and marked where it begins", async () => {
    for (const text of ["One.", "Two.", "Three."]) await alice.say(text);
    await alice.sees("Three.");
    await bob.shows(`#rooms li:has(a:text("#${red}")) .badge`, /^3/);
    await bob.page.focus(`#rooms a:has-text("#${red}")`);
    await alice.say("Four.");
    await bob.shows(`#rooms li:has(a:text("#${red}")) .badge`, /^4/);
    equal(await bob.page.evaluate(() => document.activeElement.getAttribute("href")), `#${red}`, "what has the focus");
    equal(await bob.page.title(), `(4) #${blue}`, "title");
    await bob.axe();
    await bob.page.keyboard.press("Enter");
    await bob.sees("Four.");
    equal(await bob.texts(), ["One.", "Two.", "Three.", "Four."], "messages");
    equal(await bob.page.evaluate(() => document.activeElement.id), "text", "focus");
    equal(await bob.page.locator("#messages > li").first().textContent(), "New", "the mark before the first");
    equal(await bob.page.locator(".badge").count(), 0, "marks of unread messages");
    equal(await bob.page.title(), `#${red}`, "title");
  });

  await check("back and forward go through the rooms, and find them as they were", async () => {
    await bob.page.goBack();
    await bob.isIn(blue);
    equal(await bob.texts(), ["Anyone here?"], "messages");
    await bob.page.goForward();
    await bob.isIn(red);
    equal(await bob.texts(), ["One.", "Two.", "Three.", "Four."], "messages");
    const sockets = await bob.page.evaluate(() => globalThis.test.sockets.length);
    equal(sockets, 1, "sockets for all rooms");
  });

  await check("an address names its room, and a reload keeps the list", async () => {
    await bob.page.goto(`${base}#${blue}`);
    await bob.page.reload();
    await bob.isIn(blue);
    await bob.sees("Anyone here?");
    equal(await bob.page.locator("#rooms a").allTextContents(), ["#lobby", `#${red}`, `#${blue}`], "rooms");
    await alice.say("Five.");
    await bob.shows(`#rooms li:has(a:text("#${red}")) .badge`, /^1/);
  });

  await check("a room that is left is told nobody any more", async () => {
    await bob.page.click(`[aria-label="Leave #${red}"]`);
    await bob.page.locator(`#rooms a:has-text("#${red}")`).waitFor({ state: "detached" });
    equal(await bob.page.evaluate(() => document.activeElement.id), "join-room", "focus");
    await bob.page.click(`[aria-label="Leave #${blue}"]`);
    await bob.isIn("general");
    equal(await bob.page.locator("#rooms a").allTextContents(), ["#lobby", "#general"], "rooms");
  });

  await check("a name that no room can have is refused in words", async () => {
    await bob.page.fill("#join-room", "no such room");
    await bob.page.press("#join-room", "Enter");
    await bob.shows("#notice p", /“no such room”/);
    await bob.go("%zz");
    await bob.shows("#notice p", /“%zz”/);
    equal(await bob.page.isDisabled("#text"), true, "nothing can be written");
    await bob.axe();
    await bob.visit(red);
    await bob.sees("Five.");
  });

  await check("on a phone the list is behind a button, which counts", async () => {
    const carol = await open("Carol", PHONE, red);
    await carol.isIn(red);
    await carol.openPanel();
    await carol.page.fill("#join-room", blue);
    await carol.page.press("#join-room", "Enter");
    await carol.isIn(blue);
    await carol.hides("#panel");
    await alice.say("Six.");
    await carol.shows("#menu", "Rooms (1)");
    await carol.openPanel();
    await carol.fits();
    await carol.axe();
    await carol.page.click(`#rooms a:has-text("#${red}")`);
    await carol.sees("Six.");
    await carol.hides("#panel");
    await carol.context.close();
  });

  const long = `${room}.long`;
  const bot = new Chat({ url: base, WebSocket });
  const say = (text) => bot.room(long).send({ name: "Bot", text });
  await check("the past is read as it is scrolled to, and what is read stays in its place", async () => {
    await Promise.all(Array.from({ length: MANY }, (_, index) => say(`Message ${index + 1} of the thousand.`)));
    await alice.visit(long);
    await alice.until("the newest are there", () => document.querySelectorAll("#messages .message").length >= 50);
    const first = await alice.page.locator("#messages .message").count();
    if (first > 150) throw new Error(`${first} messages at once`);
    await alice.until("it is at the end", () => {
      const log = document.getElementById("log");
      return log.scrollHeight - log.scrollTop - log.clientHeight < 40;
    });
    // One page up, as the reader's wheel would do it: the message at the top of the window stays where it is.
    const moved = await alice.page.evaluate(async () => {
      const log = document.getElementById("log");
      log.scrollTop -= 300;
      await new Promise((resolve) => setTimeout(resolve, 100));
      const row = [...document.querySelectorAll("#messages .message")].find((node) => node.getBoundingClientRect().top > log.getBoundingClientRect().top);
      const [text, top, count] = [row.textContent, row.getBoundingClientRect().top, document.querySelectorAll("#messages .message").length];
      log.scrollTop = 300;
      const at = row.getBoundingClientRect().top;
      const deadline = Date.now() + 20_000;
      while (document.querySelectorAll("#messages .message").length === count) {
        if (Date.now() > deadline) throw new Error("nothing older is read");
        await new Promise(requestAnimationFrame);
      }
      await new Promise((resolve) => requestAnimationFrame(() => requestAnimationFrame(resolve)));
      return [text, top, at, row.getBoundingClientRect().top - at];
    });
    if (Math.abs(moved[3]) > 80) throw new Error(`what was read moved by ${moved[3]} px`);
  });

  await check("a thousand messages are scrolled through, with bounded rows", async () => {
    await alice.page.evaluate(() => (globalThis.test.longTasks.length = 0));
    const profile = await alice.context.newCDPSession(alice.page);
    await profile.send("Performance.enable", { timeDomain: "threadTicks" }); // CPU, not what others leave of it
    const cpuMs = async () => (await profile.send("Performance.getMetrics")).metrics.find(({ name }) => name === "TaskDuration").value * 1_000;
    const cpuBefore = await cpuMs();
    const report = await alice.page.evaluate(async () => {
      const log = document.getElementById("log");
      const frames = [];
      let last = performance.now();
      const next = () => new Promise((resolve) => requestAnimationFrame((now) => (frames.push(now - last), (last = now), resolve())));
      for (let frame = 0; frame < 3_000 && !document.getElementById("older").textContent.includes("beginning"); frame += 1) {
        log.scrollTop -= 400;
        await next();
      }
      const top = document.querySelectorAll("#messages .message").length;
      const rows = document.querySelectorAll("#messages > li").length;
      for (let frame = 0; frame < 3_000 && log.scrollHeight - log.scrollTop - log.clientHeight > 2; frame += 1) {
        log.scrollTop += 400;
        await next();
      }
      frames.sort((a, b) => a - b);
      return { top, rows, frames: frames.length, median: frames[frames.length >> 1], p99: frames[Math.floor(frames.length * 0.99)] };
    });
    if (report.top < MANY) throw new Error(`only ${report.top} messages were found`);
    if (report.rows > HELD) throw new Error(`${report.rows} rows`);
    await alice.until("the end is kept, the rest is let go", (kept) => document.querySelectorAll("#messages .message").length <= kept, KEPT);
    const longTasks = await alice.page.evaluate(() => globalThis.test.longTasks);
    const [cpu, median, p99] = [((await cpuMs()) - cpuBefore) / report.frames, report.median, report.p99].map((ms) => ms.toFixed(1));
    const longest = Math.max(0, ...longTasks);
    console.log(`      ${report.top} messages up and down: ${report.frames} frames, each ${cpu} ms of CPU; median ${median} ms, p99 ${p99} ms; ${longTasks.length} long tasks, the longest ${longest} ms`);
    const texts = await alice.texts();
    const expected = Array.from({ length: texts.length }, (_, index) => `Message ${MANY - texts.length + index + 1} of the thousand.`);
    equal(texts, expected, "messages at the end");
  });

  await check("a flood keeps rows bounded, and the reader of older ones where they are", async () => {
    await alice.page.evaluate(() => (document.getElementById("log").scrollTop -= 1_000));
    await alice.shows("#newer", /newest/);
    const top = await alice.page.evaluate(() => document.getElementById("log").scrollTop);
    await Promise.all(Array.from({ length: 300 }, (_, index) => say(`Flood ${index}`)));
    await alice.shows("#newer", /^300 new/);
    const after = await alice.page.evaluate(() => document.getElementById("log").scrollTop);
    if (Math.abs(after - top) > 200) throw new Error(`it scrolled from ${top} to ${after}`);
    await alice.page.click("#newer");
    await alice.hides("#newer");
    await alice.until("the newest is in sight", () => {
      const log = document.getElementById("log");
      return log.scrollHeight - log.scrollTop - log.clientHeight < 40 && document.querySelectorAll("#messages .message").length <= 500;
    });
  });

  await check("what was read too late does not keep the older ones from being read", async () => {
    let release;
    const held = new Promise((resolve) => (release = resolve));
    await alice.page.route("**/messages?*", (route) => held.then(() => route.continue()), { times: 1 });
    await alice.page.evaluate(() => (document.getElementById("log").scrollTop = 0));
    await alice.shows("#older", /Reading/);
    await Promise.all(Array.from({ length: 50 }, (_, index) => say(`Wave ${index}`)));
    await alice.page.click("#newer");
    await alice.until("the first are let go", (kept) => document.querySelectorAll("#messages .message").length <= kept, KEPT);
    release();
    await alice.page.evaluate(() => (document.getElementById("log").scrollTop = 0));
    await alice.until("older ones are read", (kept) => document.querySelectorAll("#messages .message").length > kept, KEPT);
    bot.close();
  });
}
