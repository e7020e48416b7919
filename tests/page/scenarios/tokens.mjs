// A server that asks for tokens: the page says so, says what is wrong with the last one, and goes on with the next.

import { DESKTOP, User } from "../user.mjs";

export default async function tokens({ ask, check, equal, open }) {
  User.troubled = true; // Chromium prints each refusal
  const alice = await open("Alice", DESKTOP, "general");
  const enter = async (token) => {
    await alice.page.fill("#token", token);
    await alice.page.press("#token", "Enter");
  };

  await check("it asks for a token, and says why", async () => {
    await alice.shows("#token-title", "This server asks for a token");
    await alice.shows("#token-answer", /^It says: .*token/);
    await alice.shows("#status", "waiting for a token");
    equal(await alice.page.evaluate(() => document.activeElement.id), "token", "focus");
    await alice.axe();
    await alice.picture("token-desktop-light");
    await alice.page.emulateMedia({ colorScheme: "dark" });
    await alice.axe();
    await alice.page.emulateMedia({ colorScheme: "light" });
  });

  await check("not now is an answer, and it can be entered later", async () => {
    await alice.page.click("#token-cancel");
    await alice.hides("#token-dialog");
    await alice.fits();
    await alice.axe();
    await alice.say("Patience.");
    await alice.shows("#outbox .state", "waiting for the connection");
    await alice.page.click("#enter-token");
    await alice.shows("#token-title", /asks for a token/);
  });

  await check("what is no token is refused at once, and one that does not count with the server's words", async () => {
    await enter("");
    await alice.shows("#token-fault", /Enter a token/);
    await enter("no token!");
    await alice.shows("#token-fault", /That is not a token/);
    await alice.axe();
    await enter(await ask("expired"));
    await alice.until("it is asked again", () => document.getElementById("token-dialog").open && document.getElementById("token").value === "");
    await alice.shows("#token-answer", /^It says: ./);
  });

  await check("with one that counts, what was written goes out", async () => {
    await enter(await ask("good"));
    await alice.isIn("general");
    await alice.sees("Patience.");
    equal(await alice.socket("return socket.offered.map((word) => word.split('.')[0])"), ["chat", "bearer"], "subprotocols");
    await alice.shows("#people-list li", /alice \(you\)/);
    equal([await alice.page.isDisabled("#name"), await alice.page.inputValue("#name")], [true, "alice"], "the name is the token's");
    await alice.page.click("#what-happened");
    await alice.page.reload();
    await alice.isIn("general");
    await alice.sees("Patience.");
    equal(await alice.page.locator("#messages .own").count(), 1, "own messages");
  });

  await check("a token that ends soon is renewed on the same socket", async () => {
    await alice.page.click("#change-token");
    await enter(await ask("short"));
    await alice.isConnected();
    await alice.shows("#notice p", /ends soon/);
    equal(await alice.page.locator("#token-dialog").isVisible(), false, "nobody is interrupted");
    const sockets = await alice.page.evaluate(() => globalThis.test.sockets.length);
    await alice.page.click("#what-happened");
    await alice.page.click("#enter-token");
    await alice.shows("#token-title", "Your token ends soon");
    await alice.axe();
    await enter(await ask("good"));
    await alice.shows("#frame-list .frame-out b", "auth");
    await alice.shows("#frame-list .frame-out code", /"token":"…"/);
    await alice.shows("#frame-list .frame-in", /ack.*"ref":"t"/s);
    equal(await alice.page.evaluate(() => globalThis.test.sockets.length), sockets, "sockets");
    await alice.page.click("#close-frames");
  });

  await check("a room that the token does not allow is said to be so, and others go on", async () => {
    await alice.page.click("#change-token");
    await enter(await ask("guest"));
    await alice.isIn("general");
    await alice.go("staff");
    await alice.shows("#ended p", /^You are not in this room: .*staff/);
    equal(await alice.page.isDisabled("#text"), true, "nothing can be written");
    await alice.axe();
    await alice.fits();
    await alice.visit("general");
    await alice.say("Still here.");
    await alice.sees("Still here.");
  });

  await check("what may not be said is said to be so", async () => {
    await alice.go("board");
    await alice.shows("#title", "#board");
    await alice.say("Me too.");
    await alice.shows("#outbox .state", /^Not sent: /);
    equal(await alice.page.locator("#outbox button:has-text('Retry')").count(), 0, "ways to try in vain");
    await alice.page.click("#outbox button:has-text('Discard')");
    await alice.visit("general");
  });

  await check("after three that do not count it stops, keeps what was written, and goes on with a good one", async () => {
    await alice.page.click("#change-token");
    await enter(await ask("expired"));
    for (const round of [1, 2, 3]) {
      await alice.until(`it is asked for the time ${round}`, () => document.getElementById("token-dialog").open && document.getElementById("token").value === "");
      await enter(await ask("expired"));
    }
    await alice.shows("#status", "not connected");
    await alice.shows("#notice p", /./);
    await alice.axe();
    await alice.say("Failed first.");
    await alice.shows("#outbox .failed .state", /^Not sent: /);
    await alice.page.click("#enter-token");
    await enter(await ask("good"));
    await alice.isConnected();
    for (const text of await alice.page.locator("#outbox .failed .text").allTextContents()) {
      await alice.page.click(`#outbox .failed:has-text("${text}") button:has-text("Retry")`);
      await alice.sees(text);
    }
    equal((await alice.texts()).at(-1), "Failed first.", "the last message");
    equal(await alice.page.locator("#outbox li").count(), 0, "messages still waiting");
  });

  await check("another user sees nothing of the last one's", async () => {
    await alice.page.click("#change-token");
    await enter(await ask("bob"));
    await alice.until("the name is the other one's", () => document.getElementById("name").value === "bob");
    await alice.isIn("general");
    await alice.sees("Failed first.");
    equal(await alice.page.locator(".own").count(), 0, "own messages");
  });
  User.troubled = false;
}
