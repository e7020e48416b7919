// A backend beside chat-api: node server.mjs (Node 20 or later, no packages).
// It serves the page, gives its users tokens, and publishes what it has stored itself.

import { createHmac } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";

const CHAT = "http://localhost:8080/api/chat-api";
const PORT = 3000;
const FILES = { "/": ["index.html", "text/html"], "/chat.mjs": ["chat.mjs", "text/javascript"] };

/** A token for `sub`, signed with the secret that chat-api has too. `rooms`: who may read (s), publish (p), see others (w) where. */
export function mint(sub, rooms, seconds = 600) {
  const iat = Math.floor(Date.now() / 1000);
  const encode = (part) => Buffer.from(JSON.stringify(part)).toString("base64url");
  const text = `${encode({ alg: "HS256", typ: "JWT" })}.${encode({ sub, iat, exp: iat + seconds, chat: { rooms } })}`;
  return `${text}.${createHmac("sha256", process.env.CHAT_AUTH__SECRET).update(text).digest("base64url")}`;
}

/** Publishes in `user`'s name. The key makes it safe to repeat: within 15 minutes the same key is stored once. */
export async function publish(user, room, payload, key) {
  const headers = {
    Authorization: `Bearer ${mint(user, { [room]: "p" }, 60)}`,
    "Content-Type": "application/json",
    "Idempotency-Key": key,
  };
  for (let tries = 1; ; tries += 1) {
    const response = await fetch(`${CHAT}/rooms/${room}/messages`, { method: "POST", headers, body: JSON.stringify({ payload }) }).catch(() => null);
    if (response?.ok) return (await response.json()).id;
    const again = !response || response.status === 429 || response.status >= 500;
    if (!again || tries === 5) throw new Error(`not published: ${response ? await response.text() : "no answer"}`);
    await new Promise((resolve) => setTimeout(resolve, Number(response?.headers.get("Retry-After") ?? 1) * 1000));
  }
}

const orders = []; // your database

async function answer(request, response) {
  const url = new URL(request.url, "http://localhost");
  if (request.method === "GET" && url.pathname === "/token") {
    // Here belongs your session: who is it, and to which teams do they belong?
    return response.end(mint(url.searchParams.get("user"), { "team.red": "spw" }));
  }
  if (request.method === "POST" && url.pathname === "/orders") {
    const number = orders.push({ user: "alice" });
    await publish("alice", "team.red", { text: `order ${number}` }, `order-${number}`);
    return response.writeHead(201).end();
  }
  const [file, type] = FILES[url.pathname] ?? [];
  if (!file) return response.writeHead(404).end();
  response.setHeader("Content-Type", type);
  response.end(await readFile(new URL(`../browser/${file}`, import.meta.url)));
}

// Only when it is the program, not when it is imported.
if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  createServer((request, response) =>
    answer(request, response).catch((error) => {
      console.error(error);
      response.writeHead(502).end();
    }),
  ).listen(PORT, () => console.log(`http://localhost:${PORT}`));
}
