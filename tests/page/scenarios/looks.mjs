// How it looks: on a desk, a tablet and a phone, in light and dark, in each of its states; nothing overlaps, and axe finds nothing.

import { DESKTOP, PHONE } from "../user.mjs";

const TABLET = { viewport: { width: 820, height: 1100 }, colorScheme: "dark", hasTouch: true };

const TALK = [
  ["Alice", "Morning! Is the new release out?"],
  ["Bob", "Rolling out now: two of three pods are done."],
  ["Bob", "Nobody was dropped so far."],
  ["Alice", "Lovely. I kept typing through all of it."],
  ["Carol", "I was on the train, in two tunnels. Everything came, in order, and once."],
  ["Bob", "A link that does not break anywhere: https://example.com/" + "a-long-way/".repeat(8)],
  ["Alice", "Then let us close the change. Thank you both!"],
];

export default async function looks({ check, open }) {
  const shown = "release";
  const alice = await open("Alice", DESKTOP, shown);
  const bob = await open("Bob", TABLET, shown);
  const carol = await open("Carol", PHONE, shown);
  const everybody = [alice, bob, carol];
  for (const user of everybody) await user.isIn(shown);
  for (const [name, text] of TALK) {
    await everybody.find((user) => user.name === name).say(text);
    for (const user of everybody) await user.sees(text);
  }

  async function looksGood(user, picture) {
    for (const colorScheme of ["light", "dark"]) {
      await user.page.emulateMedia({ colorScheme });
      await user.fits();
      await user.axe();
      await user.picture(`${picture}-${colorScheme}`);
    }
  }

  await check("a conversation, with unread messages elsewhere", async () => {
    for (const name of ["general", "incidents"]) {
      await alice.page.fill("#join-room", name);
      await alice.page.press("#join-room", "Enter");
      await alice.isIn(name);
    }
    await alice.page.click(`#rooms a:has-text("#${shown}")`);
    await bob.visit("incidents");
    for (const text of ["All quiet.", "Still quiet."]) await bob.say(text);
    await bob.visit(shown);
    await alice.shows(".badge", /^2/);
    await alice.page.focus("#text");
    await bob.page.locator("#text").pressSequentially("Th");
    await alice.shows("#typing", "Bob is typing…");
    await alice.picture("page");
    await looksGood(alice, "desktop");
    await looksGood(bob, "tablet");
    await looksGood(carol, "phone");
  });

  await check("with what happened beside it", async () => {
    for (const [user, picture] of [[alice, "drawer-desktop"], [bob, "drawer-tablet"], [carol, "drawer-phone"]]) {
      await user.page.click("#what-happened");
      await user.page.click("#clear");
      await user.page.locator("#text").pressSequentially("…");
      await user.page.locator("#frame-list summary", { hasText: "typing" }).first().waitFor();
      await user.page.locator("#frame-list summary").last().click();
      await user.page.locator("#frame-list pre").waitFor();
      await looksGood(user, picture);
      await user.page.click("#close-frames");
    }
  });

  await check("the panel of a phone", async () => {
    await carol.openPanel();
    await carol.page.evaluate(() => document.getElementById("panel").scrollIntoView());
    await looksGood(carol, "panel-phone");
    await carol.openPanel(false);
  });

  await check("offline", async () => {
    for (const [user, picture] of [[alice, "offline-desktop"], [carol, "offline-phone"]]) {
      await user.cutNetwork();
      await user.say("This one waits.");
      await user.shows("#outbox .state", "waiting for the connection");
      await looksGood(user, picture);
      await user.restoreNetwork();
      await user.sees("This one waits.");
    }
  });

  await check("a small window, and text twice as large", async () => {
    await carol.page.setViewportSize({ width: 320, height: 568 });
    await carol.fits();
    await carol.axe();
    await alice.page.setViewportSize({ width: 590, height: 700 }); // what a zoom of 200 % leaves of a desktop
    await alice.fits();
    await alice.axe();
    await alice.page.setViewportSize(DESKTOP.viewport);
  });
}
