// Drives the chat page in Chromium as its users would: node chat.mjs <scenario> <folder for pictures> <url>
//
// What is done to the server is asked for on stdout, a line `? <what>`, and answered on stdin by a line of JSON: tests/it/page.rs does it.

import { randomBytes } from "node:crypto";
import { createInterface } from "node:readline";
import { chromium } from "playwright-core";
import { User, equal } from "./user.mjs";

const [scenario, pictures, base] = process.argv.slice(2);
const { default: play } = await import(new URL(`scenarios/${scenario}.mjs`, import.meta.url));
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
User.pictures = pictures;

async function ask(what) {
  console.log(`? ${what}`);
  return JSON.parse((await answers.next()).value);
}

let failed = 0;

async function check(what, act) {
  const started = Date.now();
  try {
    await act();
    console.log(`ok    ${what} (${Date.now() - started} ms)`);
  } catch (error) {
    failed += 1;
    console.log(`FAIL  ${what}\n      ${String(error.stack).split("\n").slice(0, 8).join("\n      ")}`);
    for (const [index, user] of users.entries()) await user.picture(`failed-${scenario}-${index}`).catch(() => {});
  }
}

const users = [];
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
const open = async (name, options, room, init) => {
  const user = await User.open(browser, name, base, options, room, init);
  users.push(user);
  return user;
};
try {
  await play({ ask, base, check, equal, open, room: `test-${randomBytes(6).toString("hex")}` });
  await check("no errors, no breach of the policy, no request elsewhere", async () => {
    for (const user of users) if (!user.page.isClosed()) await user.complain();
    equal(User.complaints, [], "complaints");
  });
} catch (error) {
  failed += 1;
  console.log(`FAIL  the test itself\n      ${error.stack}`);
} finally {
  await browser.close();
  process.stdin.destroy();
}
console.log(failed === 0 ? "passed" : `${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
