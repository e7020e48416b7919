// Runs the JavaScript on its input with `open(url)`, a page of a browser of its own, and `sees(page, text)`. For tests/docs/run.py.

import { readFileSync } from "node:fs";
import { chromium } from "playwright-core";

const PATIENCE_MS = 60_000;

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});

/** What a page has shown on its console and as errors: printed when something fails. */
const said = [];

async function open(url) {
  const page = await (await browser.newContext()).newPage();
  page.setDefaultTimeout(PATIENCE_MS);
  page.on("console", (message) => said.push(`${url}: ${message.text()}`));
  page.on("pageerror", (error) => said.push(`${url}: ${error}`));
  await page.goto(url);
  return page;
}

const sees = (page, text) => page.getByText(text).filter({ visible: true }).first().waitFor();

try {
  const code = readFileSync(0, "utf8");
  await new (Object.getPrototypeOf(async () => {}).constructor)("open", "sees", code)(open, sees);
} catch (error) {
  console.error([error, ...said].join("\n"));
  process.exitCode = 1;
} finally {
  await browser.close();
}
