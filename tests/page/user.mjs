// Users of the chat page: each has a browser context of its own, with one tab. Waits for what the page shows, never for time to pass.

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { AxeBuilder } from "@axe-core/playwright";

const PATIENCE_MS = 30_000;
export const DESKTOP = { viewport: { width: 1180, height: 760 }, colorScheme: "light" };
export const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true, colorScheme: "dark" };

export function equal(actual, expected, what) {
  const [a, e] = [actual, expected].map((value) => JSON.stringify(value));
  if (a !== e) throw new Error(`${what}: expected ${e}, found ${a}`);
}

/** Runs in the page before its scripts: keeps hold of its sockets, so that a test can break them, and of what takes long. */
function instrument() {
  globalThis.test = { sockets: [], violations: [], longTasks: [], refused: false };
  addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI, sourceFile }) => {
    // The checker's own style sheets are not the page's.
    if (sourceFile || blockedURI !== "inline") globalThis.test.violations.push(`${violatedDirective} ${blockedURI}`);
  });
  new PerformanceObserver((list) => globalThis.test.longTasks.push(...list.getEntries().map(({ duration }) => Math.round(duration)))).observe({ type: "longtask" });
  globalThis.WebSocket = class extends WebSocket {
    constructor(url, protocols) {
      super(globalThis.test.refused ? new URL("/assets/nothing", url) : url, protocols);
      this.offered = [protocols ?? []].flat();
      globalThis.test.sockets.push(this);
    }
  };
}

/** Runs in the page before its scripts: as if the name had been chosen earlier. */
function callMe(name) {
  if (location.protocol === "http:") localStorage.getItem("chat.name") ?? localStorage.setItem("chat.name", name);
}

/** What is visible and should neither leave the window nor lie upon another. Runs in the page. */
function faultsOfLayout() {
  const faults = [];
  const { innerWidth, innerHeight } = globalThis;
  if (document.documentElement.scrollWidth > innerWidth) faults.push(`the page is ${document.documentElement.scrollWidth} wide in ${innerWidth}`);
  const seen = (selector) => [...document.querySelectorAll(selector)].filter((node) => node.checkVisibility() && node.getBoundingClientRect().width > 1);
  const name = (node) => node.id || node.className || node.tagName;
  const apart = (nodes) => {
    const boxes = nodes.map((node) => [node, node.getBoundingClientRect()]);
    for (const [index, [one, a]] of boxes.entries()) {
      if (a.left < -1 || a.top < -1 || a.right > innerWidth + 1 || a.bottom > innerHeight + 1) faults.push(`${name(one)} leaves the window`);
      for (const [other, b] of boxes.slice(index + 1)) {
        const [x, y] = [Math.min(a.right, b.right) - Math.max(a.left, b.left), Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top)];
        if (x > 1 && y > 1) faults.push(`${name(one)} and ${name(other)} overlap`);
      }
    }
  };
  apart(seen("header, #panel, main, #frames"));
  apart(seen("header > *"));
  apart(seen("main > .strip, #log, .below, #composer"));
  apart(seen("#composer > textarea, #composer > button"));
  for (const node of seen("main, header, #panel, #frames, #log")) if (node.scrollWidth > node.clientWidth + 1) faults.push(`${name(node)} scrolls sideways`);
  for (const node of seen("button")) if (node.scrollWidth > node.clientWidth + 1) faults.push(`the button ${node.textContent} is cut off`);
  if (document.querySelector("#log").clientHeight < 120) faults.push("hardly any room for messages");
  if (seen("#text, #composer button").length !== 2) faults.push("the composer is not there");
  return faults;
}

export class User {
  /** What no page may do: uncaught exceptions, errors in the console, breaches of the policy, requests elsewhere. */
  static complaints = [];
  /** Chromium prints every request that fails; while the network is cut, or a token refused, that is no fault. */
  static troubled = false;
  static pictures = "";

  static async open(browser, name, base, options, room, init) {
    const context = await browser.newContext({ locale: "en-GB", ...options });
    context.setDefaultTimeout(PATIENCE_MS);
    await context.addInitScript(instrument);
    await context.addInitScript(callMe, JSON.stringify(name));
    if (init) await context.addInitScript(init);
    const page = await context.newPage();
    page.on("pageerror", (error) => User.complaints.push(`${name}: ${error.stack}`));
    page.on("console", (message) => {
      if (message.type() === "error" && !User.troubled) User.complaints.push(`${name}: ${message.text()}`);
    });
    page.on("request", (request) => {
      if (!request.url().startsWith(new URL(base).origin)) User.complaints.push(`${name}: asked for ${request.url()}`);
    });
    const user = Object.assign(new User(), { context, page, name, base });
    await user.go(room);
    return user;
  }

  go(room) {
    return this.page.goto(new URL(`#${room}`, this.base).href);
  }

  async visit(room) {
    await this.go(room);
    await this.isIn(room);
  }

  /** Connected, and in this room. */
  async isIn(room) {
    await this.shows("h1", `#${room}`);
    await this.isConnected();
    if (room !== "lobby") await this.shows("#present", /here/);
  }

  isConnected() {
    return this.shows("#status", "connected");
  }

  /** Waits until the element is visible and holds exactly this text, or text that matches. */
  async shows(selector, text) {
    const exact = typeof text === "string" ? new RegExp(`^\\s*${text.replace(/[^\w\s]/g, "\\$&")}\\s*$`) : text;
    try {
      await this.page.locator(selector).filter({ hasText: exact }).first().waitFor();
    } catch {
      const found = await this.page.locator(selector).allInnerTexts();
      throw new Error(`${this.name} waits for ${text} in ${selector}; it holds ${JSON.stringify(found.slice(-5))}`);
    }
  }

  async hides(selector) {
    await this.page.locator(selector).waitFor({ state: "hidden" });
  }

  /** Waits until this is so in the page. */
  async until(what, condition, argument) {
    await this.page.waitForFunction(condition, argument).catch(() => {
      throw new Error(`${this.name}: never: ${what}`);
    });
  }

  async openPanel(open = true) {
    const menu = this.page.locator("#menu");
    if ((await menu.isVisible()) && ((await menu.getAttribute("aria-expanded")) === "true") !== open) await menu.click();
  }

  async say(text) {
    await this.page.fill("#text", text);
    await this.page.press("#text", "Enter");
  }

  /** Waits until the room's log, as shown here, ends with this text. */
  async sees(text) {
    await this.shows("#messages > li:last-child .text", text);
  }

  texts() {
    return this.page.locator("#messages .text").allTextContents();
  }

  notes() {
    return this.page.locator("#messages .note").allTextContents();
  }

  /** The newest socket, as the page's script sees it. */
  socket(act, argument) {
    return this.page.evaluate(([body, value]) => new Function("socket", "value", body)(globalThis.test.sockets.at(-1), value), [act, argument]);
  }

  async cutNetwork() {
    User.troubled = true;
    await this.context.setOffline(true);
    await this.shows("#status", "offline");
  }

  async restoreNetwork() {
    await this.context.setOffline(false);
    await this.isConnected();
    User.troubled = false;
  }

  async axe() {
    const { violations } = await new AxeBuilder({ page: this.page }).analyze();
    equal(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(" ").slice(0, 300)}`), [], "violations");
  }

  async fits() {
    equal(await this.page.evaluate(faultsOfLayout), [], "layout");
  }

  async picture(file) {
    await mkdir(User.pictures, { recursive: true });
    await this.page.screenshot({ path: join(User.pictures, `${file}.png`) });
  }

  async complain() {
    const violations = await this.page.evaluate(() => globalThis.test.violations);
    User.complaints.push(...violations.map((violation) => `${this.name}: ${violation}`));
  }
}

/** What is said in a room, in the order of its log, and a way to say more of it that all see. */
export function conversation() {
  const told = [];
  async function tell(speaker, text, ...listeners) {
    await speaker.say(text);
    told.push(text);
    for (const user of [speaker, ...listeners]) await user.sees(text);
  }
  return { told, tell };
}
