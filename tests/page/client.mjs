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
const AWAY_MS = 30;

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

/** A way to the server that takes a while, in both directions. */
class Distant extends WebSocket {
  send(text) {
    setTimeout(() => this.readyState === 1 && super.send(text), AWAY_MS);
  }

  emit(event, ...values) {
    if (event !== "message") return super.emit(event, ...values);
    setTimeout(() => super.emit(event, ...values), AWAY_MS);
    return true;
  }
}

/** The frames that a chat sends, or gets, from now on. */
function frames(chat, way) {
  const list = [];
  chat.on("frame", ({ way: other, frame }) => other === way && list.push(frame));
  return list;
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const open = (chat) => eventually("it is open", () => chat.state.name === "open");
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
    const [came, sent] = [frames(alice, "in"), frames(alice, "out")];
    const red = follow(alice, "red");
    await joined(red);
    assert.equal(alice.state.from, "alice");
    await eventually("renewed on the socket", () => came.some(({ type, ref }) => type === "ack" && ref === "t"));
    assert.ok(asked >= 2 && sent.some(({ type, token }) => type === "auth" && token === "…"), "and not shown");
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
    const [came, asked] = [frames(bob, "in"), frames(bob, "out")];
    for (let n = 1; n <= 2500; n += 500) await Promise.all(numbers(500, n).map((n) => speaks.send(n)));
    await eventually("all have come", () => came.filter(({ id }) => id !== undefined).length === 2500);
    assert.deepEqual(seen, [1], "the second waits for the first");
    assert.ok(hears.joined, "who is behind may send");
    release();
    await reading;
    assert.deepEqual(seen, numbers(2500));
    assert.ok(asked.some(({ type }) => type === "unsubscribe"), "the rest was left to the log");
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

  /** Its listener waits for its own answers, with more messages before it than a client keeps. */
  async bot() {
    const [alice, bob] = [connect(urls[0], { queue: 1500 }), connect(urls[0])];
    const speaks = alice.room("red");
    await Promise.all(numbers(1500).map((n) => speaks.send(n)));
    const hears = follow(bob, "red", { after: BEGINNING });
    const answered = [];
    hears.on("message", async ({ own, payload }) => {
      if (!own) await hears.send(`to ${payload}`).then(() => answered.push(payload));
    });
    await eventually(() => `${answered.length} are answered`, () => answered.length === 1500);
    assert.deepEqual(answered, numbers(1500));
    assert.deepEqual(hears.got.filter((payload) => typeof payload === "number"), numbers(1500), "each once");
  },

  /** Rooms that are opened once the chat is open, many at once, and by whoever is told that it is. */
  async late() {
    const alice = connect(urls[0]);
    const asked = frames(alice, "out");
    let early;
    alice.on("state", ({ name }) => name === "open" && (early ??= follow(alice, "red")));
    await open(alice);
    const many = numbers(60).map((n) => follow(alice, `room-${n}`));
    await joined(early, ...many);
    const subscribes = asked.filter(({ type }) => type === "subscribe");
    assert.deepEqual(subscribes.flatMap(({ rooms }) => Object.keys(rooms)).sort(), ["red", ...many.map(({ name }) => name)].sort());
    assert.ok(subscribes.length <= 3, `${subscribes.length} frames`);
    // The session is in the lobby already.
    const lobby = follow(alice, "lobby");
    await joined(lobby);
    await lobby.send("hi");
    await got(lobby, ["hi"]);
    const { position } = lobby;
    lobby.leave();
    const again = follow(alice, "lobby", { after: position });
    await joined(again);
    assert.deepEqual([said(lobby), said(again)], [["joined", "left"], ["recovered"]]);
    // What is wrong with one room that is asked for is not the others' fault.
    const [wrong, right] = [follow(alice, "wrong", { after: "yesterday" }), follow(alice, "right")];
    await joined(right);
    await eventually("it is said", () => said(wrong).length > 0);
    assert.deepEqual([wrong.told[0][0], wrong.told[0][1].error.code], ["left", "invalid_message"]);
    assert.deepEqual(alice.errors, []);
  },

  /** A room is left and entered again while the first answer is still on its way. */
  async quick() {
    const alice = connect(urls[0], { WebSocket: Distant });
    const first = follow(alice, "red");
    const receipts = [];
    for (const n of numbers(5)) receipts.push(await first.send(n));
    await got(first, numbers(5));
    const enter = async (name, options, waitMs) => {
      const before = follow(alice, name, options);
      await sleep(waitMs);
      before.leave();
      await sleep(5);
      return follow(alice, name, options);
    };
    first.leave();
    for (const waitMs of [0, 10, AWAY_MS, 2 * AWAY_MS, 3 * AWAY_MS]) {
      const [taken, fresh] = await Promise.all([enter("red", { after: receipts[1].id }, waitMs), enter("blue", {}, waitMs)]);
      await joined(taken, fresh);
      await got(taken, [3, 4, 5]);
      assert.deepEqual([said(taken), said(fresh)], [["recovered"], ["joined"]], `after ${waitMs} ms`);
      taken.leave();
      fresh.leave();
    }
    assert.deepEqual(alice.errors, []);
  },

  /** Over the rate of frames: what is left stays left, and is entered again. */
  async limited() {
    const alice = connect(urls[0]);
    await open(alice);
    const came = frames(alice, "in");
    const rooms = numbers(90).map((n) => follow(alice, `room-${n}`));
    await joined(...rooms);
    for (const room of rooms) room.leave();
    // As many others wait until there is room for them.
    const others = numbers(95).map((n) => follow(alice, `other-${n}`));
    await joined(follow(alice, "room-90"), ...others);
    const left = () => came.filter(({ type }) => type === "unsubscribed").map(({ room }) => room);
    await eventually(() => `${left().length} are left`, () => left().length === 90);
    assert.ok(came.some(({ code }) => code === "rate_limited"), "it was too fast");
    assert.deepEqual(left().sort(), rooms.map(({ name }) => name).sort());
    assert.deepEqual([alice.states, alice.errors], [["connecting", "open"], []], "one socket all the time");
  },

  /** What can never be sent is refused here, and harms neither the room nor the socket. */
  async refused() {
    const alice = connect(urls[0], { queue: undefined, fetch: undefined, token: undefined, signal: undefined });
    const red = follow(alice, "red");
    await joined(red);
    for (const type of [7, null, {}, "", "Upper", "x".repeat(65), "line\n"]) {
      await assert.rejects(red.send("?", { type }), { name: "ChatError", code: "invalid_message" });
      assert.throws(() => red.signal(type), { name: "ChatError", code: "invalid_message" });
    }
    const long = "ä".repeat(20_000);
    await assert.rejects(red.send(long), { code: "too_large" });
    assert.throws(() => red.signal("cursor", long), { name: "ChatError", code: "too_large" });
    assert.throws(() => red.typing(long), { code: "too_large" });
    assert.ok(red.signal("cursor", "ä".repeat(10_000)), "which fits");
    await red.send("goes on", { type: "a.b_c-1" });
    await got(red, ["goes on"]);
    assert.equal((await red.history({ limit: 1 })).messages[0].type, "a.b_c-1");
    assert.deepEqual([alice.states, alice.errors], [["connecting", "open"], []]);
  },

  /** The socket is closed 1008 for half a frame that does not go on: a phone in a tunnel, which comes out of it. */
  async tunnel() {
    const sockets = [];
    class Kept extends WebSocket {
      constructor(...options) {
        super(...options);
        sockets.push(this);
      }
    }
    const alice = connect(urls[0], { WebSocket: Kept });
    const red = follow(alice, "red");
    await joined(red);
    const codes = [];
    sockets[0].addEventListener("close", ({ code }) => codes.push(code));
    const half = Buffer.from([0x81, 0xfe, 0x01, 0x00, 0, 0, 0, 0, 0]);
    sockets[0]._socket.write(half.subarray(0, 8));
    await sleep(1_500);
    sockets[0]._socket.write(half.subarray(8));
    await eventually("it is closed", () => codes.length > 0);
    assert.deepEqual(codes, [1008]);
    await red.send("out of it");
    await got(red, ["out of it"]);
    assert.deepEqual(said(red), ["joined", "recovered"]);
  },

  /** The backend answers with an error page, and with a newline behind the token. */
  async errorPage() {
    const tokens = ["<html>502 Bad Gateway</html>", "a.b.c\n", "a.b.c"];
    const alice = connect(urls[0], { token: () => tokens.shift() });
    const red = follow(alice, "red");
    await red.send("at last");
    assert.deepEqual(alice.errors.map(({ code, cause }) => [code, cause.name]), [["token", "TypeError"], ["token", "TypeError"]]);
    assert.deepEqual(tokens, []);
    assert.ok(!alice.errors.some(({ message }) => message.includes("html")), "and it is not repeated: it may be one");
    // One that is always the same will not do the next time either.
    const bob = connect(urls[0], { token: "a.b.c\n" });
    await assert.rejects(bob.room("red").send("in vain"), { code: "token" });
    assert.deepEqual([bob.state.name, bob.state.error.code], ["closed", "token"]);
  },

  /** The clock here is ahead: by more than the ten minutes that tokens live, and by a few seconds less. */
  async clock() {
    const { now } = Date;
    Date.now = () => now() + 900_000;
    let asked = 0;
    const alice = connect(urls[0], { token: () => ((asked += 1), ask("token")) });
    const red = follow(alice, "red");
    await joined(red);
    for (const _ of numbers(3)) await red.history();
    await sleep(6_000);
    assert.equal(asked, 1);
    [Date.now, Math.random] = [() => now() + 593_500, () => 0];
    const [bob, sent] = [connect(urls[0], { token: () => ask("token") }), []];
    bob.on("frame", ({ frame: { type } }) => type === "auth" && sent.push(now()));
    await eventually("it is renewed, and again", () => sent.length === 2);
    assert.ok(sent[1] - sent[0] > 8_000, `but more and more slowly: after ${sent[1] - sent[0]} ms`);
    assert.deepEqual([alice.states, bob.states], [["connecting", "open"], ["connecting", "open"]]);
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
