// Opens the reference in Chromium: node docs.mjs <base url> [screenshot dir]
// What has to be on it is what the service's two documents have.

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { AxeBuilder } from "@axe-core/playwright";
import { chromium } from "playwright-core";

const [base, pictures] = process.argv.slice(2);
if (!base) {
  console.error("usage: node docs.mjs <base url> [screenshot dir]");
  process.exit(2);
}
const PATIENCE_MS = 20_000;
const DESKTOP = { viewport: { width: 1200, height: 800 } };
const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };

let passed = 0;
let failed = 0;
/** What no page may do: errors in the console, uncaught exceptions, breaches of the policy, requests elsewhere. */
const complaints = [];

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

/** The same with all keys in order. */
const sorted = (value) =>
  Array.isArray(value) ? value.map(sorted) : value && typeof value === "object" ? Object.fromEntries(Object.keys(value).sort().map((key) => [key, sorted(value[key])])) : value;

function equal(actual, expected, what) {
  const [a, e] = [actual, expected].map((value) => JSON.stringify(value));
  if (a !== e) throw new Error(`${what}: expected ${e}, found ${a}`);
}

async function open(browser, options, hash = "") {
  const context = await browser.newContext(options);
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  page.on("pageerror", (error) => complaints.push(error.message));
  // Chromium reports a breach of the policy here.
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  page.on("request", (request) => {
    if (new URL(request.url()).origin !== new URL(base).origin) complaints.push(`asked for ${request.url()}`);
  });
  const answer = await page.goto(`${base}docs${hash}`);
  if (!answer.headers()["content-security-policy"]?.includes("script-src 'self'")) complaints.push("the page has no policy");
  await page.locator("html[data-state=ready]").waitFor();
  return page;
}

async function axe(page, ...rules) {
  const checker = new AxeBuilder({ page });
  const { violations } = await (rules.length ? checker.withRules(rules) : checker).analyze();
  equal(violations.map(({ id, nodes }) => [id, nodes[0].html]), [], "violations");
}

/** The texts of the entries whose id begins so. */
const entries = (page, prefix) => page.locator(`main article[id^="${prefix}"]`);

async function picture(page, name) {
  if (!pictures) return;
  await mkdir(pictures, { recursive: true });
  await page.screenshot({ path: join(pictures, `${name}.png`) });
}

async function shows(page, openapi, asyncapi) {
  await check("every operation of OpenAPI, with its parameters and answers", async () => {
    let count = 0;
    for (const [path, methods] of Object.entries(openapi.paths)) {
      for (const [method, { operationId, parameters = [], responses, summary }] of Object.entries(methods)) {
        const text = await page.locator(`#http-${operationId}`).innerText();
        const words = [method.toUpperCase(), path, summary.replaceAll("`", ""), ...parameters.map(({ name }) => name), ...Object.keys(responses)];
        equal(words.filter((word) => !text.includes(word)), [], `not shown of ${operationId}`);
        count += 1;
      }
    }
    equal(await entries(page, "http-").count(), count, "operations");
  });
  await check("every channel of AsyncAPI", async () => {
    for (const [name, { address, bindings: { ws } }] of Object.entries(asyncapi.channels)) {
      const text = await page.locator(`#channel-${name}`).innerText();
      const words = [address, ...Object.keys(ws.query.properties), ...Object.keys(ws.headers.properties)];
      equal(words.filter((word) => !text.includes(word)), [], `not shown of ${name}`);
    }
  });
  await check("every message of AsyncAPI, with its fields and examples", async () => {
    const all = Object.entries(asyncapi.components.messages);
    for (const [name, { payload, examples }] of all) {
      const article = page.locator(`#send-${name}, #get-${name}`);
      equal(await article.count(), 1, `entries of ${name}`);
      const terms = await article.locator("dt code").allInnerTexts();
      equal(Object.keys(payload.properties).filter((field) => !terms.includes(field)), [], `fields not shown of ${name}`);
      const shown = (await article.locator("pre").allTextContents()).map((text) => JSON.parse(text));
      equal(sorted(shown), sorted(examples.map((example) => example.payload)), `examples of ${name}`);
    }
    equal(await entries(page, "send-").count() + await entries(page, "get-").count(), all.length, "messages");
  });
  await check("every code and every schema", async () => {
    for (const [id, codes] of [["error-codes", asyncapi["x-error-codes"]], ["close-codes", asyncapi["x-close-codes"]]]) {
      const shown = await page.locator(`#${id} dt > code`).allInnerTexts();
      equal(shown, codes.map(({ code }) => String(code)), id);
    }
    const names = new Set([openapi, asyncapi].flatMap((document) => Object.keys(document.components.schemas)));
    equal((await entries(page, "schema-").locator("h4").allInnerTexts()).sort(), [...names].sort(), "schemas");
  });
  await check("nothing is left open", async () => {
    const text = await page.locator("main").innerText();
    equal(["undefined", "[object", "NaN"].filter((word) => text.includes(word)), [], "words of mistakes");
    const broken = await page.evaluate(() => [...document.querySelectorAll('a[href^="#"]')].map((a) => a.hash).filter((hash) => !document.getElementById(hash.slice(1))));
    equal(broken, [], "links to nothing");
    const ids = await page.evaluate(() => [...document.querySelectorAll("[id]")].map((one) => one.id));
    equal(ids.filter((id, index) => ids.indexOf(id) !== index), [], "ids that stand twice");
  });
}

async function filters(page) {
  await check("the keyboard finds an entry", async () => {
    await page.keyboard.press("/");
    await page.keyboard.type("retry_after_ms");
    const visible = page.locator("main article:visible");
    const ids = await visible.evaluateAll((articles) => articles.map((article) => article.id));
    equal(ids.includes("get-error") && ids.includes("error-codes") && !ids.includes("send-ping"), true, `found ${ids}`);
    equal(await page.locator("nav li:visible").count(), ids.length, "contents");
    equal((await page.locator("#matches").innerText()).startsWith(`${ids.length} of `), true, "the count");
    await page.keyboard.press("Enter");
    await page.waitForURL(`**#${ids[0]}`);
    await page.keyboard.press("Escape");
    equal(await visible.count(), await page.locator("main article").count(), "entries after Escape");
    await page.locator("#filter").fill("nosuchword");
    equal(await visible.count(), 0, "entries");
    await axe(page);
  });
  await check("a link shows what the filter hides", async () => {
    await page.evaluate(() => { location.hash = "close-codes"; });
    await page.locator("#close-codes").waitFor();
    equal(await page.locator("#filter").inputValue(), "", "filter");
    equal(await page.locator('nav a[aria-current="true"]').innerText(), "Close codes", "the entry in the contents");
  });
}

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
try {
  const [openapi, asyncapi] = await Promise.all(["openapi", "asyncapi"].map(async (name) => (await fetch(`${base}api/chat-api/${name}.json`)).json()));
  const page = await open(browser, DESKTOP);
  await shows(page, openapi, asyncapi);
  await filters(page);
  for (const [device, options] of Object.entries({ desktop: DESKTOP, phone: PHONE })) {
    await check(`${device}: axe finds nothing, light or dark; nothing is wider than the page; a link from outside works`, async () => {
      const one = await open(browser, { ...options, colorScheme: "light" }, "#get-welcome");
      equal(await one.evaluate(() => document.documentElement.scrollWidth - innerWidth), 0, "pixels too wide");
      const { y } = await one.locator("#get-welcome").boundingBox();
      equal(y >= 0 && y < 100, true, `the entry is at the top, not at ${y}`);
      await axe(one);
      await picture(one, `docs-${device}-light`);
      await one.emulateMedia({ colorScheme: "dark" });
      // What differs is colours.
      await axe(one, "color-contrast");
      await picture(one, `docs-${device}-dark`);
      await one.context().close();
    });
  }
  await check("what cannot be loaded is said", async () => {
    const context = await browser.newContext(DESKTOP);
    const one = await context.newPage();
    await one.route("**/asyncapi.json", (route) => route.fulfill({ status: 503, body: "" }));
    await one.goto(`${base}docs`);
    await one.getByRole("alert").filter({ hasText: "asyncapi.json was answered 503" }).waitFor();
  });
  await check("no errors, no breach of the policy, no request elsewhere", async () => equal(complaints, [], "complaints"));
} finally {
  await browser.close();
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed ? 1 : 0);
