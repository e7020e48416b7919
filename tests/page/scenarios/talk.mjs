// Two people talk: what each of them sees, hears of the other, and finds after a reload.

import { randomBytes } from "node:crypto";
import { DESKTOP, PHONE, conversation } from "../user.mjs";

export default async function talk({ check, equal, open, room }) {
  const alice = await open("Alice", DESKTOP, room);
  const bob = await open("Bob", DESKTOP, room);
  for (const user of [alice, bob]) await user.isIn(room);
  const { told, tell } = conversation();

  await check("two users chat both ways", async () => {
    await tell(alice, "Morning! Is the new release out?", bob);
    await tell(bob, "Rolling out now: two of three pods are done.", alice);
    await tell(bob, "Nobody was dropped so far.", alice);
    await tell(alice, "Lovely. I kept typing through all of it.", bob);
  });

  await check("own messages are marked, those of others carry a name in their own colour", async () => {
    equal(await alice.page.locator("#messages .own .text").allTextContents(), [told[0], told[3]], "own messages");
    equal(await bob.page.locator("#messages .message:not(.own) .name").allTextContents(), ["Alice", "Alice"], "names");
    await alice.shows("#messages .own .state", /sent/);
    equal(await alice.page.locator("#outbox li").count(), 0, "messages still waiting");
    const hues = (user, name) => user.page.locator(`.name:text-is("${name}")`).evaluateAll((nodes) => [...new Set(nodes.map((node) => node.style.getPropertyValue("--hue")))]);
    for (const name of ["Alice", "Bob"]) equal(await hues(alice, name), await hues(bob, name), `the colour of ${name}`);
    equal((await hues(alice, "Alice"))[0] === (await hues(alice, "Bob"))[0], false, "one colour for both");
  });

  await check("it says who is there, by name", async () => {
    await alice.shows("#present", "2 here");
    for (const [me, other] of [[alice, "Bob"], [bob, "Alice"]]) {
      await me.shows("#people-list li", new RegExp(other));
      await me.shows("#people-list li", new RegExp(`${me.name} \\(you\\)`));
    }
    const carol = await open("Carol", DESKTOP, room);
    for (const user of [alice, bob]) await user.shows("#people-list li", /Carol/);
    await carol.shows("#people-list li", /Bob/);
    await carol.page.fill("#name", "Caroline");
    await carol.page.press("#name", "Tab");
    await alice.shows("#people-list li", /Caroline/);
    await carol.context.close();
  });

  await check("it says who is typing, until the message is there", async () => {
    await bob.page.locator("#text").pressSequentially("Coffee");
    await alice.shows("#typing", "Bob is typing…");
    await bob.page.press("#text", "Enter");
    told.push("Coffee");
    await alice.sees("Coffee");
    await alice.until("nobody is typing", () => document.getElementById("typing").textContent === "");
    equal(await bob.page.locator("#typing").textContent(), "", "one's own typing");
  });

  await check("markup stays text, and lines stay lines", async () => {
    await bob.page.fill("#text", "<img src=x onerror=alert(1)>");
    await bob.page.press("#text", "Shift+Enter");
    await bob.page.locator("#text").pressSequentially("second line");
    await bob.page.press("#text", "Enter");
    told.push("<img src=x onerror=alert(1)>\nsecond line");
    await alice.sees(/second line/);
    equal(await alice.page.locator("#messages img").count(), 0, "images made of text");
  });

  await check("the keyboard reaches everything in reading order", async () => {
    await alice.page.focus("#what-happened");
    const order = [];
    for (let tabs = 0; tabs < 30; tabs += 1) {
      const at = await alice.page.evaluate(() => document.activeElement.id || document.activeElement.getAttribute("aria-label") || document.activeElement.textContent.trim());
      if (order.includes(at)) break;
      order.push(at);
      await alice.page.keyboard.press("Tab");
    }
    const expected = ["what-happened", "#lobby", `#${room}`, `Leave #${room}`, "join-room", "Join", "name", "change-token", "log", "text", "Send"];
    equal(order.filter((at) => expected.includes(at)), expected, "order of focus");
  });

  await check("a live region reads messages out, but not what is old", async () => {
    const region = (user) => user.page.locator("#log").evaluate((log) => [log.getAttribute("role"), log.ariaLive, log.ariaBusy]);
    await alice.until("the log is quiet", () => document.getElementById("log").ariaBusy === "false");
    equal(await region(alice), ["log", "polite", "false"], "the log");
  });

  await check("a reload shows the earlier messages once each, and whose they were", async () => {
    const own = await bob.page.locator("#messages .own").count();
    await bob.page.reload();
    await bob.isConnected();
    await tell(alice, "Still with us, Bob?", bob);
    equal(await bob.texts(), told, "messages after the reload");
    equal(await bob.page.locator("#messages .own").count(), own, "own messages after the reload");
  });

  await check("a tab that was away reads what was sent meanwhile", async () => {
    await bob.page.goto("about:blank");
    await tell(alice, "This one you missed.");
    await bob.visit(room);
    await bob.sees("This one you missed.");
    equal(await bob.texts(), told, "messages after coming back");
  });

  await check("a newcomer reads the whole history once", async () => {
    const dora = await open("Dora", PHONE, room);
    await dora.sees(told.at(-1));
    equal(await dora.texts(), told, "history");
    await dora.context.close();
  });

  await check("a message sent twice under one key is shown once", async () => {
    const again = "for (const ref of ['a', 'b']) socket.send(JSON.stringify({ type: 'chat', room: value.room, ref, payload: value }))";
    await alice.socket(again, { room, name: "Alice", text: "Sent twice.", key: randomBytes(16).toString("hex") });
    told.push("Sent twice.");
    await tell(bob, "Got it.", alice);
    equal(await alice.texts(), told, "messages");
  });

  await check("what cannot be stored says why, and can be discarded", async () => {
    await alice.page.evaluate(() => document.getElementById("text").removeAttribute("maxlength"));
    await alice.say("long ".repeat(8_000));
    await alice.shows("#outbox .state", /^Not sent: the message does not fit/);
    equal(await alice.page.locator("#outbox button:has-text('Retry')").count(), 0, "ways to try in vain");
    await alice.axe();
    await alice.page.click("#outbox button:has-text('Discard')");
    equal(await alice.page.locator("#outbox li").count(), 0, "messages still waiting");
    await tell(alice, "Shorter.", bob);
  });

  await check("the lobby speaks to every room", async () => {
    const news = `Maintenance at noon (${randomBytes(3).toString("hex")}).`;
    const eve = await open("Eve", DESKTOP, "lobby");
    await eve.isIn("lobby");
    await eve.say(news);
    await eve.sees(news);
    for (const user of [alice, bob]) await user.shows("#announcement p", `Eve to everyone: ${news}`);
    equal(await alice.texts(), told, "messages of the room");
    await alice.until("the newest message is in sight", () => {
      const { scrollHeight, scrollTop, clientHeight } = document.getElementById("log");
      return scrollHeight - scrollTop - clientHeight < 2;
    });
    await alice.page.click("#announcement button");
    await alice.hides("#announcement");
    await eve.context.close();
  });

  await check("what happened is shown frame by frame, without end but bounded", async () => {
    await bob.page.click("#what-happened");
    await bob.shows("#frame-list .frame-in b", "welcome");
    await tell(bob, "In the drawer.", alice);
    const sent = bob.page.locator("#frame-list .frame-out", { hasText: "In the drawer." });
    await sent.locator("summary").click();
    const frame = JSON.parse(await sent.locator("pre").textContent());
    equal([frame.type, frame.room, frame.payload.text], ["chat", room, "In the drawer."], "the frame that was sent");
    equal((await sent.locator("pre").textContent()).includes('\n  "'), true, "laid out");
    equal(/^\d\d:\d\d:\d\d\.\d{3}$/.test(await sent.locator("time").textContent()), true, "its time");
    await bob.shows("#frame-list .frame-in", /In the drawer\./);
    await bob.axe();
    await bob.page.click("#pause");
    const before = await bob.page.locator("#frame-list li").count();
    await tell(alice, "Nobody looks.", bob);
    equal(await bob.page.locator("#frame-list li").count(), before, "frames while paused");
    await bob.page.click("#pause");
    await bob.socket("for (let ref = 1; ref <= 300; ref += 1) socket.send(JSON.stringify({ type: 'ping', ref: String(ref) }))");
    await bob.shows("#frame-list li", /300/);
    equal(await bob.page.locator("#frame-list li").count(), 200, "frames at most");
    await bob.page.click("#clear");
    equal(await bob.page.locator("#frame-list li").count(), 0, "frames after clearing");
    await bob.page.press("#frame-list", "Escape");
    await bob.hides("#frames");
  });
}
