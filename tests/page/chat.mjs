// Drives the chat page in Chromium as its users would: node chat.mjs <base url> [screenshot dir]
// Needs a running server without authentication. Waits for what the page shows, never for time to pass.

import { randomBytes } from "node:crypto";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { AxeBuilder } from "@axe-core/playwright";
import { chromium } from "playwright-core";

const [base, pictures] = process.argv.slice(2);
if (!base) {
  console.error("usage: node chat.mjs <base url> [screenshot dir]");
  process.exit(2);
}
const PATIENCE_MS = 10_000;
const DESKTOP = { viewport: { width: 1100, height: 760 }, colorScheme: "light" };
const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true, colorScheme: "dark" };
const room = `test-${randomBytes(6).toString("hex")}`;

let passed = 0;
let failed = 0;
/** What no page may do: errors in the console, uncaught exceptions, breaches of the policy, requests elsewhere. */
const complaints = [];
/** Chromium prints every socket that fails to open; while we cut the network that is no fault. */
let networkIsCut = false;

async function check(what, act) {
  try {
    await act();
    passed += 1;
    console.log(`ok    ${what}`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL  ${what}\n      ${String(error.message).split("\n").slice(0, 6).join("\n      ")}`);
  }
}

function equal(actual, expected, what) {
  const [a, e] = [actual, expected].map((value) => JSON.stringify(value));
  if (a !== e) throw new Error(`${what}: expected ${e}, found ${a}`);
}

/** Runs in the page before its scripts: keeps hold of its sockets, so that a test can break them or refuse a frame. */
function instrument() {
  globalThis.test = { sockets: [], violations: [], refusal: null, refuse: false };
  addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI, sourceFile }) => {
    // The checker's own style sheets are not the page's.
    if (sourceFile || blockedURI !== "inline") globalThis.test.violations.push(`${violatedDirective} ${blockedURI}`);
  });
  globalThis.WebSocket = class extends WebSocket {
    constructor(url, protocols) {
      super(globalThis.test.refuse ? new URL("/assets/nothing", url) : url, protocols);
      this.offered = [protocols ?? []].flat();
      globalThis.test.sockets.push(this);
    }
    send(frame) {
      const { refusal } = globalThis.test;
      if (!refusal) return super.send(frame);
      const data = JSON.stringify({ type: "error", ref: JSON.parse(frame).ref, ...refusal });
      queueMicrotask(() => this.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
}

/** One user: a browser context of its own, with one tab. */
class User {
  static async open(browser, name, options, where = room) {
    const context = await browser.newContext(options);
    context.setDefaultTimeout(PATIENCE_MS);
    await context.addInitScript(instrument);
    const page = await context.newPage();
    page.on("pageerror", (error) => complaints.push(`${name}: ${error.message}`));
    page.on("console", (message) => {
      if (message.type() === "error" && !networkIsCut) complaints.push(`${name}: ${message.text()}`);
    });
    page.on("request", (request) => {
      if (!request.url().startsWith(new URL(base).origin)) complaints.push(`${name}: asked for ${request.url()}`);
    });
    const user = Object.assign(new User(), { context, page, name });
    await user.visit(where);
    await user.openPanel();
    await page.fill("#name", name);
    await page.press("#name", "Tab");
    await user.closePanel();
    return user;
  }

  async visit(where) {
    await this.page.goto(new URL(`#${where}`, base).href);
    await this.isConnected();
  }

  async openPanel() {
    const menu = this.page.locator("#menu");
    if ((await menu.isVisible()) && (await menu.getAttribute("aria-expanded")) === "false") await menu.click();
  }

  async closePanel() {
    const menu = this.page.locator("#menu");
    if ((await menu.isVisible()) && (await menu.getAttribute("aria-expanded")) === "true") await menu.click();
  }

  isConnected() {
    return this.shows("#status", "connected");
  }

  /** Waits until the element is visible and holds exactly this text, or text that matches. */
  async shows(selector, text) {
    const exact = typeof text === "string" ? new RegExp(`^\\s*${text.replace(/[^\w\s]/g, "\\$&")}\\s*$`) : text;
    const match = this.page.locator(selector).filter({ hasText: exact });
    try {
      await match.first().waitFor();
    } catch {
      const found = await this.page.locator(selector).allInnerTexts();
      throw new Error(`${this.name} waits for ${text} in ${selector}; it holds ${JSON.stringify(found.slice(-5))}`);
    }
  }

  async say(text) {
    await this.page.fill("#text", text);
    await this.page.press("#text", "Enter");
  }

  /** Waits until the room's log, as shown here, ends with this text. */
  async sees(text) {
    await this.shows("#messages .message:last-child .text", text);
  }

  texts() {
    return this.page.locator("#messages .text").allTextContents();
  }

  /** The newest socket, as the page's script sees it. */
  socket(act, argument) {
    return this.page.evaluate(([body, value]) => new Function("socket", "value", body)(globalThis.test.sockets.at(-1), value), [act, argument]);
  }

  async cutNetwork() {
    networkIsCut = true;
    await this.context.setOffline(true);
    await this.page.evaluate(() => globalThis.test.sockets.at(-1).close(4000, "cut by the test"));
    await this.shows("#status", "reconnecting");
  }

  async restoreNetwork() {
    await this.context.setOffline(false);
    await this.isConnected();
    networkIsCut = false;
  }

  async axe() {
    const { violations } = await new AxeBuilder({ page: this.page }).analyze();
    equal(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ").slice(0, 200)}`), [], "violations");
  }

  async picture(file) {
    if (pictures) await this.page.screenshot({ path: join(pictures, file) });
  }
}

/** Everything the log of the room holds, in its order. */
const told = [];
async function tell(speaker, text, ...listeners) {
  await speaker.say(text);
  told.push(text);
  for (const user of [speaker, ...listeners]) await user.sees(text);
}

async function run(browser) {
  const alice = await User.open(browser, "Alice", DESKTOP);
  const bob = await User.open(browser, "Bob", DESKTOP);

  await check("two users chat both ways", async () => {
    await tell(alice, "Morning! Is the new release out?", bob);
    await tell(bob, "Rolling out now: two of three pods are done.", alice);
    await tell(bob, "Nobody was dropped so far.", alice);
    await tell(alice, "Lovely. I kept typing through all of it.", bob);
  });

  await check("own messages are marked, those of others carry a name", async () => {
    const own = await alice.page.locator("#messages .own .text").allTextContents();
    equal(own, [told[0], told[3]], "own messages");
    equal(await bob.page.locator("#messages .message:not(.own) .name").allTextContents(), ["Alice", "Alice"], "names");
    await alice.shows("#messages .own .state", /sent/);
    equal(await alice.page.locator("#outbox li").count(), 0, "messages still waiting");
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
    await alice.page.focus("#log");
    for (const expected of ["text", "Send"]) {
      await alice.page.keyboard.press("Tab");
      const at = await alice.page.evaluate(() => document.activeElement.id || document.activeElement.textContent);
      equal(at, expected, "focus");
    }
  });

  await alice.picture("conversation-desktop-light.png");

  await check("a reload shows the earlier messages once each", async () => {
    await bob.page.reload();
    await bob.isConnected();
    await tell(alice, "Still with us, Bob?", bob);
    equal(await bob.texts(), told, "messages after the reload");
    equal(await bob.page.locator("#messages .own").count(), 3, "own messages after the reload");
  });

  await check("a tab that was away reads what was sent meanwhile", async () => {
    await bob.page.goto("about:blank");
    await tell(alice, "This one you missed.");
    await bob.visit(room);
    await bob.sees("This one you missed.");
    equal(await bob.texts(), told, "messages after coming back");
    equal(await bob.socket("return new URL(socket.url).searchParams.get('after') !== '0-0'"), true, "resumed from its position");
  });

  await check("a newcomer reads the whole history once", async () => {
    const carol = await User.open(browser, "Carol", PHONE);
    await carol.sees(told.at(-1));
    equal(await carol.texts(), told, "history");
    await carol.axe();
    await carol.picture("conversation-phone-dark.png");
    await carol.openPanel();
    await carol.page.click("#settings summary");
    await carol.axe();
    await carol.picture("settings-phone-dark.png");
    await carol.context.close();
  });

  await check("what was sent during an outage arrives once, in order", async () => {
    await bob.cutNetwork();
    for (const text of ["One.", "Two.", "Three."]) await tell(alice, text);
    await bob.say("Written without a connection.");
    await bob.shows("#outbox .state", /waiting for the connection/);
    await bob.picture("outage-desktop-light.png");
    await bob.restoreNetwork();
    told.push("Written without a connection.");
    await alice.sees("Written without a connection.");
    await bob.sees("Written without a connection.");
    equal(await bob.texts(), told, "Bob's messages");
    equal(await alice.texts(), told, "Alice's messages");
  });

  await check("a draining server's hint is honoured", async () => {
    const started = Date.now();
    await bob.socket("socket.dispatchEvent(new CloseEvent('close', { code: 1012, reason: 'reconnect after 1234 ms' }))");
    await bob.shows("#countdown", "in 2 s…");
    await bob.isConnected();
    if (Date.now() - started < 1_200) throw new Error(`came back after ${Date.now() - started} ms`);
    await tell(alice, "Welcome back.", bob);
    equal(await bob.texts(), told, "messages");
  });

  await check("a refused message says why and is sent again by a click", async () => {
    const refusal = { code: "unavailable", message: "the log does not answer: try again", retryable: true, outcome: "refused" };
    await alice.page.evaluate((value) => (globalThis.test.refusal = value), refusal);
    await alice.say("Second time lucky.");
    await alice.shows("#outbox .state", /the log does not answer/);
    await alice.axe();
    await alice.page.evaluate(() => (globalThis.test.refusal = null));
    await alice.page.click("#outbox button:has-text('Retry')");
    told.push("Second time lucky.");
    await bob.sees("Second time lucky.");
    await alice.sees("Second time lucky.");
    equal(await alice.page.locator("#outbox li").count(), 0, "messages still waiting");
  });

  await check("a message sent twice under one key is shown once", async () => {
    const again = "const payload = value; for (const ref of ['a', 'b']) socket.send(JSON.stringify({ type: 'chat', ref, payload }))";
    await alice.socket(again, { name: "Alice", text: "Sent twice.", key: randomBytes(16).toString("hex") });
    told.push("Sent twice.");
    await tell(bob, "Got it.", alice);
    equal(await alice.texts(), told, "messages");
  });

  await check("an error that belongs to no message is shown, and can be dismissed", async () => {
    await alice.socket("socket.send('not JSON')");
    await alice.shows("#notice p", /refused/);
    await alice.axe();
    await alice.page.click("#notice button");
    await alice.page.locator("#notice").waitFor({ state: "hidden" });
  });

  await check("the lobby speaks to every room", async () => {
    const dave = await User.open(browser, "Dave", DESKTOP, "lobby");
    const news = `Maintenance at noon (${randomBytes(3).toString("hex")}).`;
    await dave.say(news);
    await dave.sees(news);
    for (const user of [alice, bob]) await user.shows("#announcement p", new RegExp(news.slice(-8, -2)));
    equal(await alice.texts(), told, "messages of the room");
    const atTheEnd = () => {
      const { scrollHeight, scrollTop, clientHeight } = document.getElementById("log");
      return scrollHeight - scrollTop - clientHeight < 2;
    };
    await alice.page.waitForFunction(atTheEnd, null, { timeout: 20_000 }).catch(() => {
      throw new Error("the announcement pushed the newest message out of sight");
    });
    await dave.context.close();
  });

  for (const colorScheme of ["light", "dark"]) {
    await check(`axe finds nothing (${colorScheme})`, async () => {
      await alice.page.emulateMedia({ colorScheme });
      await alice.axe();
    });
  }
  await alice.picture("announcement-desktop-dark.png");
  await alice.page.emulateMedia({ colorScheme: "light" });

  await check("rooms are apart, and going back finds everything in place", async () => {
    const other = `${room}.other`;
    await bob.page.fill("#join-room", other);
    await bob.page.press("#join-room", "Enter");
    await bob.shows("h1", `#${other}`);
    await bob.isConnected();
    equal(await bob.texts(), [], "messages in the new room");
    await bob.say("Anyone here?");
    await bob.sees("Anyone here?");
    await tell(alice, "Bob is elsewhere.");
    await bob.page.click(`#rooms a:text-is("#${room}")`);
    await bob.sees("Bob is elsewhere.");
    equal(await bob.texts(), told, "messages");
  });

  await check("a name that no room can have is refused in words", async () => {
    await bob.page.fill("#join-room", "no such room");
    await bob.page.press("#join-room", "Enter");
    await bob.shows("#notice p", /“no such room”/);
    await bob.page.goto(new URL("#%zz", base).href);
    await bob.shows("#notice p", /“%zz”/);
    await bob.page.goto(new URL(`#${room}`, base).href);
    await bob.isConnected();
    await bob.sees(told.at(-1));
  });

  await check("a token goes as a second subprotocol, and none goes without", async () => {
    equal(await bob.socket("return socket.offered"), [], "subprotocols without a token");
    await bob.page.click("#settings summary");
    await bob.page.fill("#token", "head.body.signature");
    await bob.page.press("#token", "Enter");
    await bob.page.waitForFunction(() => globalThis.test.sockets.at(-1).offered.length > 0);
    equal(await bob.socket("return socket.offered"), ["chat.plain", "bearer.head.body.signature"], "subprotocols");
    await bob.page.fill("#token", "");
    await bob.page.press("#token", "Enter");
    await bob.page.waitForFunction(() => globalThis.test.sockets.at(-1).offered.length === 0);
    await bob.isConnected();
  });

  await check("sockets that are refused lead to a hint", async () => {
    networkIsCut = true;
    await bob.socket("globalThis.test.refuse = true; socket.close(4000)");
    await bob.shows("#notice p", /token/);
    await bob.axe();
    await bob.page.evaluate(() => (globalThis.test.refuse = false));
    await bob.isConnected();
    networkIsCut = false;
    await bob.page.locator("#notice").waitFor({ state: "hidden" });
  });

  await check("no errors, no breach of the policy, no request elsewhere", async () => {
    for (const user of [alice, bob]) {
      const violations = await user.page.evaluate(() => globalThis.test.violations);
      complaints.push(...violations.map((violation) => `${user.name}: ${violation}`));
    }
    equal(complaints, [], "complaints");
  });
}

if (pictures) await mkdir(pictures, { recursive: true });
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
try {
  await run(browser);
} catch (error) {
  failed += 1;
  console.log(`FAIL  the test itself\n      ${error.stack}`);
} finally {
  await browser.close();
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
