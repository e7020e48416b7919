// A page with nothing but a WebSocket and a token: node bearer.mjs '[["<page url>", "<socket url>", "<token>"], …]'
// The pages may be any: what they serve is not used. Prints what became of each socket, as JSON.

import { chromium } from "playwright-core";

const cases = JSON.parse(process.argv[2]);

/** Runs in the page. */
function chat([url, token]) {
  return new Promise((resolve) => {
    const socket = new WebSocket(url, ["chat.plain", "bearer." + token]);
    socket.onopen = () => socket.send(JSON.stringify({ payload: "hello" }));
    socket.onmessage = ({ data }) => resolve({ protocol: socket.protocol, from: JSON.parse(data).from });
    socket.onclose = ({ code }) => resolve({ closed: code });
    setTimeout(resolve, 10_000, { state: socket.readyState });
  });
}

const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
});
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(10_000);
  const outcomes = [];
  for (const [url, ...socket] of cases) {
    await page.goto(url);
    outcomes.push(await page.evaluate(chat, socket));
  }
  console.log(JSON.stringify(outcomes));
} finally {
  await browser.close();
}
