// Drives client.js against real nodes, as a program in Node would: node client.mjs <file of client.js> <scenario> <urls>…
//
// What is done to nodes, Redis and the network between is asked for on stdout, a line `? <what>`, and answered on stdin by a line of
// JSON once it is done: tests/it/client.rs does it.

import assert from "node:assert/strict";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";
import WebSocket from "ws";

const [file, scenario, ...urls] = process.argv.slice(2);
const { BEGINNING, Chat } = await import(pathToFileURL(file));
const answers = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const PATIENCE_MS = 30_000;

async function ask(what) {
  console.log(`? ${what}`);
  return JSON.parse((await answers.next()).value);
}

async function eventually(what, check) {
  const started = Date.now();
  while (!check()) {
    if (Date.now() - started > PATIENCE_MS) throw new Error(`never: ${typeof what === "function" ? what() : what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

const chats = [];
function connect(url, options = {}) {
  const chat = new Chat({ url, WebSocket, ...options });
  chats.push(chat);
  chat.states = [];
  chat.errors = [];
  chat.on("state", ({ name }) => chat.states.push(name));
  chat.on("error", (error) => chat.errors.push(error));
  return chat;
}

/** Joins, and writes down all that the room says. */
function follow(chat, name, options) {
  const room = chat.room(name, options);
  room.told = [];
  for (const event of ["joined", "recovered", "reset", "rollback", "left"]) room.on(event, (value) => room.told.push([event, value]));
  room.got = [];
  room.on("message", ({ payload }) => room.got.push(payload));
  return room;
}

const said = (room) => room.told.map(([event]) => event);
const numbers = (count, from = 1) => Array.from({ length: count }, (_, index) => from + index);
const joined = (...rooms) => eventually("all are in their rooms", () => rooms.every((room) => room.joined));
const got = (room, payloads) =>
  eventually(() => `${JSON.stringify(payloads)}, but ${JSON.stringify(room.got)}`, () => room.got.length >= payloads.length).then(() => assert.deepEqual(room.got, payloads));

const scenarios = {
  async conversation() {
    const [alice, bob] = [connect(urls[0]), connect(urls[1])];
    const [red, reds] = [follow(alice, "red"), follow(bob, "red")];
    const blue = follow(alice, "blue");
    await joined(red, reds, blue);
    assert.deepEqual([said(red), said(blue)], [["joined"], ["joined"]]);
    const own = [];
    red.on("message", (message) => own.push(message.own));
    const receipts = await Promise.all([red.send("one"), red.send({ text: "two" }, { type: "note" }), reds.send(3)]);
    assert.deepEqual(receipts.map(({ n }) => n), [1, 2, 1]);
    assert.ok(receipts.every(({ id }) => /^\d+-\d+$/.test(id)));
    await eventually("all see all", () => red.got.length === 3 && reds.got.length === 3);
    assert.deepEqual(red.got, reds.got);
    assert.equal(own.filter(Boolean).length, 2);
    assert.deepEqual(blue.got, [], "rooms are apart");
    assert.equal((await red.history()).messages.filter(({ own }) => own).length, 2, "and of the past it knows which are its own");
    // Who is there: over both nodes.
    await eventually("both are there", () => red.presence.count === 2 && red.presence.here?.length === 2);
    const known = red.presence.here.map(({ client_id }) => client_id).sort();
    assert.deepEqual(known, [alice.state.clientId, bob.state.clientId].sort());
    // Typing comes and goes, and is nobody's own.
    const typing = [];
    reds.on("typing", (list) => typing.push(list.map(({ payload }) => payload.name)));
    red.on("typing", () => assert.fail("one's own typing"));
    red.typing({ name: "Alice" });
    red.typing({ name: "Alice" });
    await eventually("Bob sees it", () => typing.length === 1);
    await red.send("typed");
    await eventually("and what came of it", () => typing.length === 2);
    assert.deepEqual(typing, [["Alice"], []]);
    const cursors = [];
    reds.on("ephemeral", ({ type, payload, id }) => cursors.push([type, payload, id]));
    assert.ok(red.signal("cursor", [1, 2]));
    await eventually("Bob sees the cursor", () => cursors.length === 1);
    assert.deepEqual(cursors, [["cursor", [1, 2], undefined]]);
    // Who goes on after a message says so at once.
    red.typing({ name: "Alice" });
    await eventually("Bob sees it again", () => typing.length === 3);
    // The past, page by page.
    for (const n of numbers(20)) await red.send(n);
    let page = await reds.history({ limit: 8 });
    const past = [page.messages];
    while (page.messages.length > 0) past.unshift((page = await reds.history({ before: page.messages[0].id, limit: 8 })).messages);
    assert.deepEqual(past.flat().map(({ payload }) => payload).slice(-20), numbers(20));
    assert.equal(past.flat().length, 24);
    // A newcomer may begin at the beginning, and the lobby is a room like others.
    const carol = connect(urls[1]);
    const [all, lobby] = [follow(carol, "red", { after: BEGINNING }), follow(carol, "lobby")];
    await eventually("Carol reads all", () => all.got.length === 24);
    await eventually("and is in the lobby", () => lobby.joined);
    await lobby.send("to everyone");
    await got(lobby, ["to everyone"]);
    // What cannot be stored is refused by name, and what follows is not held up by it.
    await assert.rejects(red.send(1, { type: "ack" }), { name: "ChatError", code: "reserved_type" });
    await assert.rejects(red.send("x".repeat(40_000)), { code: "too_large" });
    await assert.rejects(red.send(undefined), TypeError);
    await red.send("after that");
    assert.throws(() => alice.room("no room"), /not a room/);
    // Leaving is for good; coming back to the room goes on with the count.
    red.leave();
    await assert.rejects(red.send("gone"), { code: "left" });
    const again = follow(alice, "red", { after: red.position });
    const { n } = await again.send("back");
    assert.equal(n, 27);
    await eventually("it continues", () => again.got.at(-1) === "back");
    assert.deepEqual([alice.errors, bob.errors, carol.errors], [[], [], []]);
  },

  /** Sockets break again and again, and a node goes away, while both speak. */
  async losses() {
    const [alice, bob] = [connect(urls[0]), connect(urls[0])];
    const [speaks, hears] = [follow(alice, "red", { after: BEGINNING }), follow(bob, "red", { after: BEGINNING })];
    await joined(speaks, hears);
    const sent = [];
    for (const n of numbers(200)) {
      sent.push(speaks.send(n));
      if (n % 40 === 0) await joined(speaks, hears).then(() => ask("cut"));
      else if (n === 110) await ask("restart");
      else if (n % 3 === 0) await new Promise((resolve) => setTimeout(resolve, 5));
    }
    const receipts = await Promise.all(sent);
    assert.deepEqual(receipts.map(({ n }) => n), numbers(200));
    await got(speaks, numbers(200));
    await got(hears, numbers(200));
    assert.ok(bob.states.filter((name) => name === "open").length >= 5, `${bob.states}`);
    assert.deepEqual(new Set(said(hears)), new Set(["recovered"]), "nothing was lost, and it says so");
    assert.ok(hears.told.every(([, { after, id }]) => after !== undefined && /^\d+-\d+$/.test(id)), "and up to where");
    // A drain says when to come back.
    const before = bob.states.length;
    await ask("drain");
    await eventually("they are back", () => speaks.joined && hears.joined && bob.states.length > before);
    await speaks.send("after the drain");
    await got(hears, [...numbers(200), "after the drain"]);
  },

  /** A minute without a way to the server, which is started anew, as Redis is; meanwhile both speak. */
  async minute() {
    const [alice, bob] = [connect(urls[0]), connect(urls[1])];
    const [away, stays] = [follow(alice, "red"), follow(bob, "red")];
    await joined(away, stays);
    await Promise.all([away.send("alice 0"), stays.send("bob 0")]);
    await eventually("both have both", () => away.got.length === 2 && stays.got.length === 2);
    await ask("unplug");
    const back = Date.now() + 60_000;
    const says = (room, name, count, from) => numbers(count, from).map((n) => room.send(`${name} ${n}`));
    const queued = says(away, "alice", 20);
    await Promise.all(says(stays, "bob", 20));
    await ask("kill redis");
    const unsure = says(stays, "bob", 10, 21);
    await ask("start redis");
    await Promise.all(unsure);
    await eventually("it knows that it is away", () => alice.states.includes("waiting"));
    await new Promise((resolve) => setTimeout(resolve, back - Date.now()));
    assert.equal(away.got.length, 2);
    await ask("plug in");
    await Promise.all(queued);
    await eventually(() => `${away.got.length} and ${stays.got.length}`, () => away.got.length >= 52 && stays.got.length >= 52);
    assert.deepEqual(away.got, stays.got, "one order for both");
    for (const [name, last] of [["alice", 20], ["bob", 30]]) {
      assert.deepEqual(away.got.filter((text) => text.startsWith(name)), numbers(last + 1, 0).map((n) => `${name} ${n}`), "each once and in order");
    }
    assert.deepEqual(said(away), ["joined", "recovered"]);
  },

  async redis() {
    const [alice, bob] = [connect(urls[0]), connect(urls[1])];
    const [speaks, hears] = [follow(alice, "red"), follow(bob, "red")];
    await joined(speaks, hears);
    const sent = [];
    for (const n of numbers(60)) {
      sent.push(speaks.send(n));
      if (n === 20) await ask("kill redis");
      if (n === 40) await ask("start redis");
    }
    await Promise.all(sent);
    await got(hears, numbers(60));
    await got(speaks, numbers(60));
    // Acknowledged, and lost: those who read are told, and what this chat sent is stored again, unasked.
    await ask("back up redis");
    await Promise.all([61, 62, 63].map((n) => speaks.send(n)));
    await got(hears, numbers(63));
    const kept = hears.position;
    await ask("restore redis");
    await eventually(() => `rolled back: ${JSON.stringify(hears.told)}`, () => said(hears).includes("rollback"));
    const { to } = hears.told.find(([event]) => event === "rollback")[1];
    assert.notEqual(to, kept);
    await got(hears, [...numbers(63), 61, 62, 63]);
    // A loop that does not listen for it ends by it.
    const loop = (async () => {
      for await (const _ of connect(urls[1]).room("red", { after: BEGINNING })) continue;
    })();
    const ends = assert.rejects(loop, { name: "ChatError", code: "reset" });
    await eventually("the loop is there", () => hears.presence.count === 3);
    await ask("empty redis");
    await eventually(() => `reset: ${JSON.stringify(hears.told)}`, () => said(hears).includes("reset"));
    await ends;
    await eventually("what is not older than a minute is stored again", () => hears.got.length > 66 + 3);
    await speaks.send("new");
    await eventually("it goes on", () => hears.got.at(-1) === "new");
  },

  async tokens() {
    let asked = 0;
    const reasons = [];
    const alice = connect(urls[0], { token: (why) => (reasons.push(why), (asked += 1), ask("token")) });
    const frames = [];
    alice.on("frame", ({ way, frame }) => frames.push([way, frame]));
    const red = follow(alice, "red");
    await joined(red);
    assert.equal(alice.state.from, "alice");
    await eventually("renewed on the socket", () => frames.some(([way, { type, ref }]) => way === "in" && type === "ack" && ref === "t"));
    assert.ok(asked >= 2 && frames.some(([, { type, token }]) => type === "auth" && token === "…"), "and not shown");
    await eventually("and again", () => asked >= 3);
    assert.deepEqual(alice.states, ["connecting", "open"], "one socket all the time");
    await red.send("still here");
    // Taken away: it comes back with a newer one, and nothing is lost.
    await ask("revoke");
    await red.send("here again");
    assert.deepEqual([reasons[0], reasons[1]], [{ reason: "connect", message: "" }, { reason: "renew", message: "" }]);
    assert.match(reasons.find(({ reason }) => reason === "rejected").message, /revoked/);
    await got(red, ["still here", "here again"]);
    await red.history();
    // Without another one there is no way back.
    const bob = connect(urls[0], { token: await ask("expired") });
    const room = bob.room("red");
    await assert.rejects(room.send("in vain"), { code: "token", outcome: "refused" });
    assert.deepEqual([bob.state.name, bob.state.error.code], ["closed", "token"]);
    // A room that the token does not allow.
    const carol = connect(urls[0], { token: () => ask("guest") });
    const staff = follow(carol, "staff");
    await eventually("it is said", () => staff.told.length > 0);
    assert.deepEqual([staff.told[0][0], staff.told[0][1].error.code], ["left", "forbidden"]);
    await assert.rejects(staff.send("?"), { code: "forbidden" });
  },

  async offline() {
    const alice = connect(urls[0], { queue: 3 });
    const red = follow(alice, "red");
    const abort = new AbortController();
    const sent = [red.send(1), red.send(2, { signal: abort.signal }), red.send(3)];
    await assert.rejects(red.send(4), { name: "ChatError", code: "queue_full" });
    await eventually("it waits", () => alice.states.includes("waiting"));
    abort.abort();
    await assert.rejects(sent[1], { name: "AbortError" });
    sent[1] = red.send("two");
    await ask("connect");
    await Promise.all(sent);
    await got(red, [1, 3, "two"]);
    // Signals end rooms and chats, and with them their loops.
    const [leave, close] = [new AbortController(), new AbortController()];
    const bob = connect(urls[0], { signal: close.signal });
    const [left, closed] = [bob.room("red", { signal: leave.signal }), bob.room("blue")];
    await joined(left, closed);
    const loop = async (room) => {
      for await (const _ of room) continue;
      return room.name;
    };
    const loops = [loop(left), loop(closed)];
    leave.abort();
    assert.equal(await loops[0], "red");
    close.abort();
    assert.equal(await loops[1], "blue");
    assert.deepEqual(bob.state, { name: "closed", error: undefined });
    assert.throws(() => bob.room("red"), { code: "closed" });
    const history = new AbortController();
    const reading = red.history({ signal: history.signal });
    history.abort();
    await assert.rejects(reading, { name: "AbortError" });
  },

  /** Reading is slower than writing, with many more messages than a client keeps. */
  async slow() {
    const [alice, bob] = [connect(urls[0]), connect(urls[0])];
    const [speaks, hears] = [alice.room("red"), bob.room("red")];
    let release;
    const held = new Promise((resolve) => (release = resolve));
    const seen = [];
    const positions = [];
    const reading = (async () => {
      for await (const { id, payload } of hears) {
        positions.push([hears.position, id]);
        seen.push(payload);
        if (payload === 1) await held;
        if (payload === 2500) break;
      }
    })();
    await joined(speaks, hears);
    const frames = [];
    bob.on("frame", ({ frame: { type } }) => frames.push(type));
    for (let n = 1; n <= 2500; n += 500) await Promise.all(numbers(500, n).map((n) => speaks.send(n)));
    await eventually("the rest is left to the log", () => frames.includes("unsubscribe"));
    assert.deepEqual(seen, [1], "the second waits for the first");
    release();
    await reading;
    assert.deepEqual(seen, numbers(2500));
    const moved = positions.slice(1).every(([before], index) => before === positions[index][1]);
    assert.ok(moved, "the position moves when the body is done");
    // A callback that fails is told of, and does not hold up the next.
    hears.on("message", async ({ payload }) => {
      if (payload === "bad") throw new Error("no good");
      seen.push(payload);
    });
    await speaks.send("bad");
    await speaks.send("good");
    await eventually("the next comes", () => seen.at(-1) === "good");
    assert.deepEqual([bob.errors.length, bob.errors[0].code, bob.errors[0].cause.message], [1, "callback", "no good"]);
  },
};

try {
  await scenarios[scenario]();
  console.log("passed");
} catch (error) {
  console.log(`FAIL ${error.stack}`);
  for (const { states, errors } of chats) console.log(`     ${states} ${errors}`);
  process.exitCode = 1;
} finally {
  for (const chat of chats) chat.close();
  process.stdin.destroy();
}
