// Networks, nodes and Redis fail while the page is open: each message once, in order, and the page says what happened.

import { DESKTOP, conversation } from "../user.mjs";

export default async function outages({ ask, check, equal, open, room }) {
  const alice = await open("Alice", DESKTOP, room);
  const bob = await open("Bob", DESKTOP, room);
  for (const user of [alice, bob]) await user.isIn(room);
  const { told, tell } = conversation();
  const everybodyHasAll = async () => {
    for (const user of [alice, bob]) equal(await user.texts(), told, `${user.name}'s messages`);
    for (const user of [alice, bob]) equal(await user.page.locator("#outbox li").count(), 0, `what of ${user.name} waits`);
  };

  await check("without a network, messages wait in sight, and go out in order", async () => {
    await tell(alice, "Hello.", bob);
    await bob.cutNetwork();
    for (const text of ["One.", "Two.", "Three."]) await tell(alice, text);
    for (const text of ["Written", "without a", "connection."]) await bob.say(text);
    await bob.shows("#outbox li:nth-child(3) .state", "waiting for the connection");
    await bob.fits();
    await bob.picture("offline-desktop-light");
    await bob.axe();
    await bob.restoreNetwork();
    told.push("Written", "without a", "connection.");
    for (const user of [alice, bob]) await user.sees("connection.");
    await everybodyHasAll();
    await bob.shows("#messages .note", /^You were away for \d+ s\. Nothing is missing: this came meanwhile\.$/);
  });

  await check("a socket that breaks for a moment: nothing was missed", async () => {
    await ask("cut");
    for (const user of [alice, bob]) await user.shows("#messages .note", /Nothing was missed\.$/);
    await tell(alice, "Back already.", bob);
    await everybodyHasAll();
  });

  await check("a node is killed and another one started: each message once, in order", async () => {
    await alice.page.evaluate(() => (globalThis.test.sockets.length = 0));
    for (const text of ["Before the kill 1", "Before the kill 2"]) await tell(alice, text, bob);
    for (const user of [alice, bob]) user.constructor.troubled = true;
    await ask("kill");
    for (const user of [alice, bob]) await user.shows("#status", "reconnecting");
    await alice.shows("#countdown", /^in \d+ s…$/);
    for (const text of ["During 1", "During 2", "During 3"]) await alice.say(text);
    await alice.shows("#outbox li:nth-child(3) .state", "waiting for the connection");
    await alice.shows("#notice p", /did not accept the connection/);
    await alice.axe();
    await ask("start");
    await alice.page.click("#reconnect").catch(() => {}); // it may have come back by itself
    for (const user of [alice, bob]) await user.isConnected();
    told.push("During 1", "During 2", "During 3");
    for (const user of [alice, bob]) await user.sees("During 3");
    await tell(bob, "After the restart", alice);
    await everybodyHasAll();
    for (const user of [alice, bob]) await user.shows("#messages .note", /^You were away for \d+ s/);
    await alice.hides("#notice");
    alice.constructor.troubled = false;
  });

  await check("a node that goes away in order says when to come back", async () => {
    await bob.page.click("#what-happened");
    await ask("drain");
    await bob.shows("#frame-list .frame-in b", "reconnect");
    for (const user of [alice, bob]) await user.isConnected();
    await tell(alice, "Welcome back.", bob);
    await everybodyHasAll();
    await bob.page.click("#close-frames");
  });

  await check("a reload with messages that wait offers them again, and drops those that had arrived", async () => {
    await bob.page.evaluate(() => (globalThis.test.refused = true)); // no socket from now on
    bob.constructor.troubled = true;
    await ask("cut");
    await bob.shows("#status", "reconnecting");
    await bob.say("Nearly lost.");
    await bob.shows("#outbox .state", "waiting for the connection");
    await bob.page.reload();
    await bob.isConnected();
    bob.constructor.troubled = false;
    await bob.shows("#outbox .state", /The page was closed before/);
    await bob.axe();
    await bob.page.click("#outbox button:has-text('Retry')");
    told.push("Nearly lost.");
    for (const user of [alice, bob]) await user.sees("Nearly lost.");
    equal(await bob.page.locator("#outbox li").count(), 0, "messages still waiting");
    await bob.page.reload();
    await bob.isConnected();
    await bob.sees("Nearly lost.");
    await alice.isConnected();
    await everybodyHasAll();
  });

  await check("Redis lost its last messages: rolled back, and one's own are sent again", async () => {
    await ask("back up redis");
    await tell(alice, "Lost and sent again.", bob);
    for (const user of [alice, bob]) user.constructor.troubled = true;
    await ask("restore redis");
    for (const user of [alice, bob]) await user.shows("#messages .note", /^Rolled back: the server has lost one message that was here\./);
    await alice.say("Newer.");
    told.push("Newer.");
    for (const user of [alice, bob]) await user.sees("Newer.");
    await everybodyHasAll();
    await bob.picture("rolled-back-desktop-light");
    await bob.axe();
  });

  await check("Redis lost everything: the history was reset", async () => {
    await ask("empty redis");
    for (const user of [alice, bob]) await user.shows("#messages .note", /^The history was reset/);
    for (const user of [alice, bob]) await user.isConnected();
    await alice.say("A new beginning.");
    for (const user of [alice, bob]) await user.sees("A new beginning.");
    // What is younger than a minute is sent again by who said it; nothing else comes back, and nothing twice.
    for (const user of [alice, bob]) {
      const texts = await user.texts();
      equal(texts.filter((text, index) => !told.concat("A new beginning.").includes(text) || texts.indexOf(text) !== index), [], "messages twice, or of nobody");
    }
    await bob.axe();
    alice.constructor.troubled = false;
  });
}
