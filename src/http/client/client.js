// The client of chat-api: one file, no dependencies, no build step; for browsers, and for Node from version 20 on.
//
//   import { Chat } from "https://chat.example/api/chat-api/client.js";
//   const chat = new Chat();
//   const room = chat.room("general");
//   room.on("message", ({ from, payload }) => console.log(from, payload));
//   await room.send({ text: "hi" });
//
// A socket may break at any time, and the server may go away. The client comes back and takes each room up where it was:
// each message once and in order, or an event that says what is missing (`reset`, `rollback`). What is sent is stored once.
// The protocol is in docs/protocol.md; types are in client.d.ts.

/** The position before a room's first message: `after` this, all that its log holds comes first. */
export const BEGINNING = "0-0";

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 30_000;
const LONGEST_HINT_MS = 300_000;
/** Open for this long, a socket counts as a success and the backoff begins anew. */
const STABLE_MS = 5_000;
const OPEN_DEADLINE_MS = 15_000;
const REQUEST_DEADLINE_MS = 15_000;
const REQUEST_TRIES = 5;
const HEARTBEAT_MS = 25_000;
const LONGEST_TIMER_MS = 2 ** 31 - 1;
/** Messages of a room that wait for its callbacks. More are left to the server's log, and read from there later. */
const INBOX = 1_000;
/** Messages of a room that are under way to the server at one time. */
const WINDOW = 16;
/** How long a stored message is kept: should the log lose it, it is sent again. */
const KEPT_MS = 60_000;
const KEPT = 2_000;
/** The server knows a sender's count for two hours: an older message may have been stored, and would be stored again. */
const COUNTED_MS = 110 * 60_000;
const TOKEN_TRIES = 3;
const NEXT_TOKEN_MS = 1_000;
/** With less than that left, another token is asked for before it is used. */
const ENDING_MS = 5_000;
/** Least time from one renewal to the next, and how far that grows. */
const FIRST_RENEWAL_MS = 5_000;
const LONGEST_RENEWAL_MS = 60_000;
const ROOMS_AT_ONCE = 50;
/** More than a room takes in the frame that asks for it, its share of the rest included. */
const ROOM_BYTES = 250;
/** Rooms that were refused for a while are asked for together, and not more often. */
const SETTLE_EVERY_MS = 100;
const TYPING_EVERY_MS = 3_000;
const TYPING_LASTS_MS = 6_000;
const CLIENT_IDS = 100;
/** Closes after which another socket would fare no better. 4401 depends on whether there is another token. */
const FINAL = new Set([1002, 1003, 1007, 1009, 4400, 4403]);
const UNAUTHORIZED = 4401;
const FLOODING = 4429;
const LOBBY = "lobby";

/**
 * What went wrong. `code` is for programs: one of the server's error codes, or of the client's own: `closed`, `left`,
 * `queue_full`, `too_large`, `too_old`, `token`, `request`, `reset`, `rollback`, `callback`. `outcome` is "unknown" where
 * a message may have been stored all the same.
 */
export class ChatError extends Error {
  constructor(code, message, details = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = "ChatError";
    this.code = code;
    Object.assign(this, details);
  }
}

class Emitter {
  #listeners = new Map();

  /** Calls `listener` at each `event` until the returned function is called, or the signal aborts. */
  on(event, listener, { signal } = {}) {
    if (signal?.aborted) return () => {};
    const listeners = this.#listeners.get(event) ?? new Set();
    this.#listeners.set(event, listeners.add(listener));
    const off = () => listeners.delete(listener);
    signal?.addEventListener("abort", off, { once: true });
    return off;
  }

  /** Whether anybody listens. */
  _heard(event) {
    return (this.#listeners.get(event)?.size ?? 0) > 0;
  }

  /** What the listeners returned; what they threw goes to `failed`. */
  _emit(event, value, failed) {
    return [...(this.#listeners.get(event) ?? [])].map((listener) => {
      try {
        return listener(value);
      } catch (error) {
        return failed(error);
      }
    });
  }
}

/** One connection to the service, and the rooms that are followed over it. It connects by itself, and comes back by itself. */
export class Chat extends Emitter {
  /** What the server asks to keep to: `message_bytes`, `rooms`; known once there was a connection. */
  limits = undefined;
  /** Of the messages sent here: how the server tells them from everyone else's. Never shown to others. */
  #sender = randomId();
  #options;
  #base;
  #socket = null;
  #state = { name: "connecting" };
  #rooms = new Map();
  #byKey = new Map();
  /** The next `n` by room. It outlives a room that is left and entered again. */
  #next = new Map();
  #keys = 0;
  #clientIds = [];
  #queued = 0;
  #tries = 0;
  /** Sockets in a row that the server did not accept. */
  #refusals = 0;
  #attempt = 0;
  #openedAt = 0;
  #hint = 0;
  #heard = true;
  #timers = {};
  #token = "";
  /** By the clock here, which may be another than the issuer's. */
  #tokenEnds = Infinity;
  /** Renewals in a row that were put off. */
  #hasty = 0;
  /** Tokens in a row that the server did not take, and what it said of the last one. */
  #badTokens = 0;
  #rejection = "";
  #cleanUp = [];

  /** See `ChatOptions` in client.d.ts. */
  constructor({ url, token, signal, queue = 1_000, WebSocket = globalThis.WebSocket, fetch = (...args) => globalThis.fetch(...args) } = {}) {
    super();
    this.#options = { token, queue, WebSocket, fetch };
    if (!WebSocket) throw new TypeError("there is no WebSocket here: give one as an option (Node has its own from version 22 on)");
    // From the service itself, the address of this file says where the service is.
    this.#base = url === undefined ? new URL(".", import.meta.url) : new URL("api/chat-api/", String(url).replace(/\/*$/, "/"));
    if (!/^https?:$/.test(this.#base.protocol)) throw new TypeError(`not the address of a service: ${url ?? import.meta.url}`);
    this.#listen(globalThis, "online", () => this.reconnect());
    this.#listen(globalThis, "offline", () => this.#socket && this.#lost(1006, "offline"));
    if (signal?.aborted) return void this.close();
    if (signal) this.#listen(signal, "abort", () => this.close());
    queueMicrotask(() => this.#open());
  }

  /** `connecting`, `open`, `waiting` (`waitMs`, `failures`) or `closed` (`error`, if it was not asked for). */
  get state() {
    return this.#state;
  }

  /** The room of this name, joined; with `after`, from that position on. See `RoomOptions`. */
  room(name, { after, signal } = {}) {
    if (!/^[A-Za-z0-9_.-]{1,128}$/.test(name) || name === "." || name === "..") {
      throw new TypeError(`not a room: ${JSON.stringify(name)}: a name has 1 to 128 letters (a–z), digits or _ . -`);
    }
    if (this.#state.name === "closed") throw new ChatError("closed", "this chat is closed");
    let room = this.#rooms.get(name);
    if (!room) {
      room = new Room(this.#wire, name, (this.#keys += 1), after);
      this.#rooms.set(name, room);
      this.#byKey.set(room._key, room);
      this.#places.settle();
    }
    if (signal?.aborted) room.leave();
    else signal?.addEventListener("abort", () => room.leave(), { once: true });
    return room;
  }

  /** Tries again now, rather than after the wait. */
  reconnect() {
    if (this.#state.name === "waiting") this.#open();
  }

  /** Leaves for good. What has not been stored is rejected with `closed`. */
  close() {
    this.#close(undefined);
  }

  // ---- the socket ----

  async #open() {
    if (this.#state.name === "closed") return;
    clearTimeout(this.#timers.retry);
    const attempt = (this.#attempt += 1);
    this.#openedAt = this.#hint = 0;
    this.#setState({ name: "connecting" });
    try {
      await this.#takeToken(this.#rejection ? "rejected" : "connect");
      if (attempt === this.#attempt) this.#connect();
    } catch (error) {
      if (attempt === this.#attempt) this.#notOpened(noToken(error));
    }
  }

  /** A function may give another token the next time. */
  #notOpened(error) {
    if (typeof this.#options.token === "string") return this.#close(error);
    this.#report(error);
    this.#wait(0);
  }

  #connect() {
    const url = new URL("ws", this.#base);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const socket = new this.#options.WebSocket(url.href, ["chat.v1", ...(this.#token ? [`bearer.${this.#token}`] : [])]);
    this.#socket = socket;
    // A socket that was given up may still report; only the present one is listened to.
    const listen = (event, handler) => socket.addEventListener(event, (e) => this.#socket === socket && handler(e));
    listen("open", () => this.#opened());
    listen("message", ({ data }) => this.#received(data));
    listen("error", () => {}); // a close follows
    listen("close", ({ code, reason }) => this.#lost(code, reason));
    this.#timers.deadline = setTimeout(() => this.#socket === socket && this.#lost(1006, "no answer"), OPEN_DEADLINE_MS);
  }

  #opened() {
    clearTimeout(this.#timers.deadline);
    this.#openedAt = Date.now();
    this.#refusals = this.#badTokens = 0;
    this.#rejection = "";
    this.#watch(HEARTBEAT_MS);
    this.#renewLater();
  }

  /** Browsers do not show the server's own pings: who hears nothing for as long asks, and gives the socket up without an answer. */
  #watch(everyMs) {
    clearInterval(this.#timers.heartbeat);
    this.#heard = true;
    this.#timers.heartbeat = setInterval(() => {
      if (!this.#heard) return this.#lost(1006, "silent");
      this.#heard = false;
      this.#send({ type: "ping" });
    }, everyMs);
  }

  #lost(code, reason) {
    const opened = this.#openedAt > 0;
    if (opened && Date.now() - this.#openedAt > STABLE_MS) this.#tries = 0;
    const hint = this.#hint || Number(/^reconnect after (\d+) ms/.exec(reason ?? "")?.[1] ?? 0);
    this.#drop();
    if (FINAL.has(code)) {
      return this.#close(new ChatError("closed", `the server closed the connection (${code}): ${reason || "no reason given"}`, { closeCode: code }));
    }
    if (code === UNAUTHORIZED) return this.#unauthorized(reason);
    if (code === FLOODING) this.#tries += 3;
    if (hint) return this.#wait(Math.min(hint, LONGEST_HINT_MS), 0);
    if (opened) return this.#wait(0);
    this.#refusals += 1;
    this.#diagnose();
  }

  /** Waits with full jitter, so that a crowd spreads out; not less than `leastMs`. */
  #wait(leastMs, spreadMs = Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#tries++)) {
    const waitMs = leastMs + Math.random() * spreadMs;
    this.#timers.retry = setTimeout(() => this.#open(), waitMs);
    this.#setState({ name: "waiting", waitMs, failures: this.#refusals });
  }

  /** A browser does not say why a socket was refused; a request to the same server does. */
  async #diagnose() {
    const attempt = (this.#attempt += 1);
    const room = this.#rooms.keys().next().value ?? LOBBY;
    const response = await this.#fetch(`rooms/${room}/messages?limit=1`).catch(() => null);
    const rejection = response?.status === 401 ? (await problem(response)).message : "";
    if (attempt !== this.#attempt || this.#state.name === "closed") return;
    if (rejection) this.#unauthorized(rejection);
    else this.#wait(retryAfterMs(response));
  }

  /** Another token is asked for before the next try. An issuer may need a second to make one that differs. */
  #unauthorized(reason) {
    this.#badTokens += 1;
    this.#rejection = reason || "the server does not take this token any more";
    if (typeof this.#options.token !== "function" || this.#badTokens > TOKEN_TRIES) {
      return this.#close(new ChatError("token", this.#rejection, { closeCode: UNAUTHORIZED }));
    }
    this.#token = "";
    this.#wait(this.#badTokens > 1 ? NEXT_TOKEN_MS : 0);
  }

  #drop() {
    for (const timer of Object.values(this.#timers)) clearTimeout(timer);
    this.#places.end();
    const socket = this.#socket;
    this.#socket = null;
    for (const room of this.#rooms.values()) room._disconnected();
    if (socket && socket.readyState < 2) socket.close();
  }

  #close(error) {
    if (this.#state.name === "closed") return;
    this.#attempt += 1;
    this.#drop();
    this.#cleanUp.forEach((undo) => undo());
    const reason = error ?? new ChatError("closed", "this chat was closed");
    for (const room of [...this.#rooms.values()]) room._end(reason, error);
    this.#setState({ name: "closed", error });
  }

  #setState(state) {
    this.#state = state;
    this._emit("state", state, (error) => this.#report(error));
  }

  #report(error) {
    const wrapped = error instanceof ChatError ? error : new ChatError("callback", "a callback failed", { cause: error });
    if (!this._heard("error")) console.error(wrapped);
    this._emit("error", wrapped, console.error);
  }

  #listen(target, event, listener) {
    target.addEventListener?.(event, listener);
    this.#cleanUp.push(() => target.removeEventListener?.(event, listener));
  }

  // ---- tokens ----

  async #takeToken(reason = "connect", message = this.#rejection) {
    const { token } = this.#options;
    if (typeof token !== "function") this.#token ||= checkToken(token ?? "");
    else if (!this.#token || reason !== "connect" || this.#tokenEnds - Date.now() < ENDING_MS) {
      this.#keepToken(checkToken((await token({ reason, message })) ?? ""));
    }
  }

  #keepToken(token) {
    this.#token = token;
    this.#tokenEnds = Date.now() + lifeMs(token);
  }

  #renewLater() {
    if (typeof this.#options.token !== "function" || !this.#token) return;
    // In the last third of its life, and not when everyone else does.
    this.#renewIn((this.#tokenEnds - Date.now()) * (0.7 + 0.2 * Math.random()));
  }

  /** Tokens that seem to end at once are asked for more and more slowly: it may be the clock here that is wrong. */
  #renewIn(waitMs) {
    clearTimeout(this.#timers.renew);
    const leastMs = Math.min(LONGEST_RENEWAL_MS, FIRST_RENEWAL_MS * 2 ** this.#hasty);
    const hasty = waitMs < FIRST_RENEWAL_MS;
    this.#hasty = hasty ? this.#hasty + 1 : 0;
    if (waitMs < LONGEST_TIMER_MS) this.#timers.renew = setTimeout(() => this.#renew(), hasty ? leastMs : waitMs);
  }

  async #renew() {
    const socket = this.#socket;
    try {
      await this.#takeToken("renew");
      if (this.#socket === socket && socket) this.#send({ type: "auth", token: this.#token, ref: "t" });
    } catch (error) {
      this.#report(noToken(error));
      if (this.#socket === socket) this.#renewIn(LONGEST_WAIT_MS * Math.random());
    }
  }

  // ---- frames ----

  #send(frame) {
    return this.#sendText(JSON.stringify(frame), frame);
  }

  /** Whether it was sent. Throws what is too large: the server would close the socket for it, and for good. */
  #sendText(text, frame) {
    if (this.#socket?.readyState !== 1) return false;
    this.#checkSize(text);
    this.#socket.send(text);
    if (this._heard("frame")) this.#tell("out", frame?.token ? { ...frame, token: "…" } : frame ?? JSON.parse(text));
    return true;
  }

  #checkSize(text) {
    const most = this.limits?.message_bytes ?? Infinity;
    if (text.length * 3 <= most || new TextEncoder().encode(text).length <= most) return;
    throw new ChatError("too_large", `the message does not fit into a frame of ${most} bytes`, { retryable: false });
  }

  #tell(way, frame) {
    this._emit("frame", { way, frame, at: Date.now() }, (error) => this.#report(error));
  }

  #received(data) {
    this.#heard = true;
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return; // not of this protocol
    }
    if (frame === null || typeof frame !== "object") return;
    if (this._heard("frame")) this.#tell("in", frame);
    this.#handle(frame);
  }

  #handle(frame) {
    const room = this.#places.room(frame.room);
    switch (frame.type) {
      case "welcome": return this.#welcomed(frame);
      case "ack": return frame.ref === "t" ? this.#renewLater() : this.#ofMessage(frame)?._stored(frame);
      case "error": return this.#refusedFrame(frame);
      case "subscribed": return this.#places.subscribed(frame);
      case "unsubscribed": return this.#places.unsubscribed(frame);
      case "presence": return room?._presence(frame);
      case "reconnect": return void (this.#hint = Math.max(frame.after_ms, 1));
      case "pong": return;
    }
    if (room && "payload" in frame) room._message(this.#signed(frame));
  }

  #signed(message) {
    return { ...message, own: this.#clientIds.includes(message.client_id) };
  }

  #welcomed({ client_id, from, node, heartbeat_ms, limits, rooms }) {
    this.#clientIds = [...this.#clientIds.slice(1 - CLIENT_IDS), client_id];
    this.#watch(heartbeat_ms);
    this.limits = limits;
    this.#setState({ name: "open", clientId: client_id, from, node });
    if (this.#state.name === "open") this.#places.begin(rooms); // a listener may have closed it
  }

  #ofMessage({ ref }) {
    return this.#byKey.get(Number(/^m(\d+)\./.exec(ref ?? "")?.[1]));
  }

  /** An error belongs to what its `ref` names. */
  #refusedFrame(frame) {
    const { ref = "", code, message, retryable, retry_after_ms: retryMs = 0 } = frame;
    const error = new ChatError(code, message, { retryable, outcome: frame.outcome, room: frame.room });
    if (ref === "t") return retryable ? this.#renewIn(retryMs || FIRST_WAIT_MS) : undefined; // where none is asked for, none has to be renewed
    if (ref.startsWith("m")) return this.#ofMessage(frame)?._refused(frame, error);
    if (ref.startsWith("p")) return this.#places.refused(frame, error);
    this.#report(error);
  }

  // ---- HTTP ----

  async #fetch(path, signal) {
    const deadline = AbortSignal.timeout(REQUEST_DEADLINE_MS);
    const headers = this.#token ? { Authorization: `Bearer ${this.#token}` } : {};
    return this.#options.fetch(new URL(path, this.#base).href, { headers, signal: signal ? anyOf(signal, deadline) : deadline });
  }

  /** Waits and tries again where the server asks for it. */
  async #read(path, signal) {
    for (let tries = 1; ; tries += 1) {
      signal?.throwIfAborted();
      let response;
      try {
        await this.#takeToken();
        response = await this.#fetch(path, signal);
        if (response.ok) return await response.json();
      } catch (cause) {
        signal?.throwIfAborted();
        if (tries === REQUEST_TRIES) throw new ChatError("request", `no answer to ${path}`, { cause });
      }
      if (response?.status === 401 && tries === 1 && typeof this.#options.token === "function") {
        await this.#takeToken("rejected", (await problem(response)).message);
      } else if (response && response.status !== 429 && response.status !== 503) throw await problem(response);
      else if (tries === REQUEST_TRIES) throw await problem(response);
      else await pause(retryAfterMs(response) + Math.random() * FIRST_WAIT_MS * 2 ** tries, signal);
    }
  }

  /** What a room may ask of its chat. */
  #wire = {
    send: (frame) => this.#send(frame),
    sendText: (text) => this.#sendText(text),
    read: (path, signal) => this.#read(path, signal),
    signed: (message) => this.#signed(message),
    rejoin: (room) => this.#places.leave(room),
    rooms: () => this.#rooms,
    report: (error) => this.#report(error),
    limits: () => this.limits,
    sender: () => this.#sender,
    nextN: (name) => {
      const n = this.#next.get(name) ?? 1;
      this.#next.set(name, n + 1);
      return n;
    },
    reserve: () => this.#queued < this.#options.queue && (this.#queued += 1),
    release: () => (this.#queued -= 1),
    forget: (room) => {
      this.#byKey.delete(room._key);
      if (this.#rooms.get(room.name) === room) this.#rooms.delete(room.name);
      this.#places.leave(room);
    },
  };
  #places = new Places(this.#wire);
}

/**
 * The rooms that the present socket is in, or on its way to. For each name one question is under way at a time, and only the
 * answer to that one counts: what still comes for a room that was left is not taken for what a later room of that name asked.
 * What is wanted is compared with what is once all that happens now has happened, so that many rooms are asked for together.
 */
class Places {
  #wire;
  /**
   * By name: `asked`, `in`, `left` (to be said yet), `leaving`, or `refused` until `due`. `room` is whose it is: nobody's is
   * the lobby, which the server has joined unasked. `ref` is the last question's.
   */
  #places = new Map();
  #open = false;
  #planned = false;
  #refs = 0;
  /** To leave a room takes a frame. Once they were too fast, each waits for the last one's answer, and so long after it. */
  #paceMs = 0;
  #pausedUntil = 0;
  /** Nothing is asked for before: else each refusal would be followed by the question for the next rooms. */
  #askedTooSoonUntil = 0;
  #timer = 0;

  constructor(wire) {
    this.#wire = wire;
  }

  /** Whose the room of this name is, if the socket is in it. */
  room(name) {
    const place = this.#places.get(name);
    return place?.state === "in" ? place.room : undefined;
  }

  /** A new socket, which the server has put into these rooms, each at its position. From another one, it has to be joined anew. */
  begin(positions) {
    this.#open = true;
    for (const [name, id] of Object.entries(positions)) {
      const room = this.#wire.rooms().get(name);
      const place = { state: "in", room };
      this.#places.set(name, place);
      if (room && !room._joinedAt(id)) place.room = undefined;
    }
    this.settle();
  }

  /** The socket is gone. */
  end() {
    clearTimeout(this.#timer);
    this.#open = false;
    this.#places.clear();
    this.#paceMs = this.#pausedUntil = this.#askedTooSoonUntil = 0;
  }

  /** Nothing more is to come from this room; if it is still wanted, it is joined again. */
  leave(room) {
    const place = this.#places.get(room.name);
    if (place?.room !== room) return;
    if (place.state === "refused") this.#places.delete(room.name);
    else Object.assign(place, { state: "left", room: undefined });
    this.settle();
  }

  /** Does what there is to do, soon. */
  settle() {
    if (this.#planned) return;
    this.#planned = true;
    queueMicrotask(() => {
      this.#planned = false;
      if (this.#open) this.#settle(Date.now());
    });
  }

  #settle(now) {
    clearTimeout(this.#timer);
    const wanted = [...this.#wire.rooms().values()];
    for (const room of wanted) this.#makeWay(room);
    this.#unsubscribe(now);
    this.#subscribe(this.#fitting(wanted.filter(({ name }) => this.#mayAsk(name, now))));
    this.#settleLater(now);
  }

  #makeWay(room) {
    const place = this.#places.get(room.name);
    if (place?.state === "in" && place.room !== room) place.state = "left";
  }

  #mayAsk(name, now) {
    if (now < this.#askedTooSoonUntil) return false;
    const place = this.#places.get(name);
    return !place || (place.state === "refused" && place.due <= now);
  }

  /**
   * While some are being left, no more are asked for than the server takes, and the next once those have their answer: else each
   * that is left would let in one, in a frame of its own. What is too many after that, the server refuses.
   */
  #fitting(rooms) {
    const states = this.#states();
    if (!states.some(isOnItsWayOut)) return rooms;
    if (states.includes("asked")) return [];
    const taken = states.filter((state) => state !== "refused").length;
    return rooms.slice(0, Math.max(0, this.#wire.limits().rooms - taken));
  }

  #states() {
    return [...this.#places.values()].map(({ state }) => state);
  }

  #unsubscribe(now) {
    const left = [...this.#places].filter(([, { state }]) => state === "left");
    if (left.length === 0) this.#paceMs = 0;
    if (now < this.#pausedUntil) return;
    const free = (this.#paceMs ? 1 : WINDOW) - this.#states().filter((state) => state === "leaving").length;
    for (const [room, place] of left.slice(0, Math.max(0, free))) {
      Object.assign(place, { state: "leaving", ref: this.#ref() });
      this.#wire.send({ type: "unsubscribe", room, ref: place.ref });
    }
  }

  #subscribe(rooms) {
    const alone = rooms.filter(({ name }) => this.#places.get(name)?.alone);
    for (const room of alone) this.#ask([room]);
    const others = rooms.filter((room) => !alone.includes(room));
    const most = Math.max(1, Math.min(ROOMS_AT_ONCE, Math.floor(this.#wire.limits().message_bytes / ROOM_BYTES)));
    for (let start = 0; start < others.length; start += most) this.#ask(others.slice(start, start + most));
  }

  #ask(rooms) {
    const ref = this.#ref();
    for (const room of rooms) this.#places.set(room.name, { state: "asked", room, ref });
    this.#wire.send({ type: "subscribe", rooms: Object.fromEntries(rooms.map((room) => [room.name, room._asks()])), ref });
  }

  #ref() {
    return `p${(this.#refs += 1)}`;
  }

  #settleLater(now) {
    const due = (place) => (place.state === "left" ? this.#pausedUntil : place.state === "refused" ? place.due : 0);
    const times = [...this.#places.values()].map(due).concat(this.#askedTooSoonUntil);
    const next = Math.min(...times.filter((time) => time > now));
    if (next < Infinity) this.#timer = setTimeout(() => this.settle(), Math.max(next - now, SETTLE_EVERY_MS));
  }

  // ---- what the server says ----

  subscribed(frame) {
    const place = this.#places.get(frame.room);
    if (!place && frame.ref === undefined) return this.#letIn(frame.room);
    const answers = place?.state === "asked" && place.ref === frame.ref;
    if (answers) {
      place.state = "in";
      this.settle();
    }
    if (answers || (place?.state === "in" && frame.ref === undefined)) place.room?._subscribed(frame);
  }

  /** The lobby, once a newer token allows it. */
  #letIn(name) {
    this.#places.set(name, { state: "in" });
    this.settle();
  }

  unsubscribed({ room: name, reason, ref }) {
    const place = this.#places.get(name);
    if (!place || (place.state === "leaving" ? place.ref !== ref : ref !== undefined)) return;
    this.#places.delete(name);
    this.#pausedUntil = Math.max(this.#pausedUntil, Date.now() + this.#paceMs);
    if (reason) place.room?._takenAway(reason);
    this.settle();
  }

  refused({ ref, room, retry_after_ms: retryMs }, error) {
    const asked = [...this.#places].filter(([name, place]) => place.ref === ref && (room ?? name) === name);
    const due = Date.now() + (retryMs || FIRST_WAIT_MS) * (1 + Math.random());
    for (const [name, place] of asked) {
      if (place.state === "leaving") this.#notLeft(name, place, error, due);
      else if (place.state === "asked") this.#notJoined(name, place, error, due, asked.length > 1 && room === undefined);
    }
    this.settle();
  }

  #notLeft(name, place, error, due) {
    if (!error.retryable) return this.#places.delete(name); // it was not there
    place.state = "left";
    this.#paceMs = Math.max(this.#paceMs, due - Date.now());
    this.#pausedUntil = due;
  }

  /** A frame that is refused as a whole may be so for the sake of one: then each is asked for by itself. */
  #notJoined(name, place, error, due, withOthers) {
    if (error.retryable) {
      this.#askedTooSoonUntil = Math.max(this.#askedTooSoonUntil, due);
      return Object.assign(place, { state: "refused", due });
    }
    if (withOthers) return Object.assign(place, { state: "refused", due: 0, alone: true });
    this.#places.delete(name);
    place.room._end(error, error);
  }
}

const isOnItsWayOut = (state) => state === "left" || state === "leaving";

/** One room: what is said there, who is there, and what is sent there. Made by `chat.room()`. */
export class Room extends Emitter {
  /** @type {"joining" | "joined" | "ended"} */
  #state = "joining";
  #wire;
  /** Position of the last message that has come; `position` follows it once the callbacks are done. */
  #received;
  #inbox = [];
  #running = false;
  /** The callbacks are slow: what comes is left to the log, and read from there once they are done. */
  #behind = false;
  #taps = new Set();
  #outbox;
  #typists = new Map();
  #typedAt = 0;
  #error;
  #fatal;

  constructor(wire, name, key, after) {
    super();
    this.#wire = wire;
    this.name = name;
    this._key = key;
    /** Id of the last message that the callbacks are done with: `after` this, another chat goes on. */
    this.position = after;
    /** Who is there: `count`, and `here` where the list is known. */
    this.presence = { count: 0, here: undefined };
    this.#received = after;
    this.#outbox = new Outbox(wire, this);
  }

  /** Whether it is in the room at this moment. */
  get joined() {
    return this.#state === "joined";
  }

  /** Sends a message, now or when there is a connection; settles when the room's log has it (`id`), or will not have it. */
  send(payload, { type = "chat", signal } = {}) {
    if (this.#state === "ended") return Promise.reject(this.#error);
    const wrong = faultOfType(type);
    if (wrong) return Promise.reject(wrong);
    this.#typedAt = 0; // the others take it for the end of the typing
    return this.#outbox.add(type, payload, signal);
  }

  /** Tells whoever is there now; not stored, not sent later. Whether it was sent. Throws what can never be sent. */
  signal(type, payload = null) {
    const wrong = faultOfType(type);
    if (wrong) throw wrong;
    return this.joined && this.#wire.send({ type, room: this.name, ephemeral: true, payload });
  }

  /** Says that the user is typing; call it at each key. The payload is for what the others should know besides `from`. */
  typing(payload = null) {
    if (Date.now() - this.#typedAt < TYPING_EVERY_MS || !this.signal("typing", payload)) return;
    this.#typedAt = Date.now();
  }

  /** Reads a part of the log, oldest first: the newest messages, or those `before`, `through` or `after` an id. */
  async history({ before, through, after, limit, signal } = {}) {
    const query = new URLSearchParams();
    for (const [key, value] of Object.entries({ before, through, after, limit })) if (value !== undefined) query.set(key, value);
    const part = await this.#wire.read(`rooms/${this.name}/messages?${query}`, signal);
    return { ...part, messages: part.messages.map(this.#wire.signed) };
  }

  /** No more comes from this room. What has not been stored is rejected with `left`. */
  leave() {
    this._end(new ChatError("left", `the room ${this.name} was left`));
  }

  /**
   * The messages, one after the other; the next comes when the body of the loop is done with the last. A `reset` or `rollback`
   * that nobody listens for ends the loop with that error, and so does the end of the room, unless it was asked for.
   */
  async *[Symbol.asyncIterator]() {
    const waiting = [];
    let wake = () => {};
    const tap = { take: (entry) => new Promise((done) => (waiting.push({ ...entry, done }), wake())), end: () => wake() };
    this.#taps.add(tap);
    try {
      for (;;) {
        while (waiting.length === 0) {
          if (this.#state === "ended") {
            if (this.#fatal) throw this.#fatal;
            return;
          }
          await new Promise((resolve) => (wake = resolve));
        }
        const { event, value, done } = waiting.shift();
        try {
          if (event === "message") yield value;
          else if (!this._heard(event)) throw new ChatError(event, `the room ${this.name} does not continue where it was`, value);
        } finally {
          done();
        }
      }
    } finally {
      this.#taps.delete(tap);
      waiting.forEach(({ done }) => done());
    }
  }

  // ---- what its chat tells it ----

  /** The position to ask for. */
  _asks() {
    if (this.#state === "joined") this.#state = "joining";
    return this.#received ?? "";
  }

  /** The lobby: joined at this position. Whether that is good enough. */
  _joinedAt(id) {
    if (this.#received !== undefined && this.#received !== id) return false;
    this._subscribed({ id, recovered: this.#received !== undefined });
    return true;
  }

  _subscribed({ id, recovered, rollback, presence }) {
    this.#state = "joined";
    if (presence) this._presence({ ...presence, here: presence.here ?? undefined });
    const before = this.#received;
    if (!this.#behind) this.#continues({ id, recovered, rollback }); // else it is told when the rest is asked for
    if (rollback !== undefined || (!recovered && before !== undefined)) this.#outbox.doubt();
    this.#outbox.pump();
  }

  _takenAway(reason) {
    const error = new ChatError(reason, `the room ${this.name} is not allowed any more`);
    this._end(error, error);
  }

  _message(message) {
    const who = occupantKey(message);
    if (message.id === undefined) {
      if (message.type === "typing" && !message.own) this.#typing(who, message);
      return this.#emit("ephemeral", message);
    }
    if (this.#typists.has(who)) this.#typed(who);
    this.#behind ||= this.#inbox.length >= INBOX;
    if (!this.#behind) this.#arrived("message", message, message.id);
  }

  _presence({ joined = [], left = [], here, count }) {
    const known = here ?? this.presence.here;
    let list;
    if (known && (here || joined.length + left.length > 0)) {
      const everybody = new Map(known.map((occupant) => [occupantKey(occupant), occupant]));
      for (const occupant of joined) everybody.set(occupantKey(occupant), occupant);
      for (const occupant of left) everybody.delete(occupantKey(occupant));
      list = [...everybody.values()];
    }
    this.presence = { count, here: list };
    this.#emit("presence", { ...this.presence, joined, left });
  }

  _stored(frame) {
    this.#outbox.stored(frame);
  }

  _refused(frame, error) {
    this.#outbox.refused(frame, error);
  }

  _disconnected() {
    if (this.#state !== "ended") this.#state = "joining";
    this.#behind = false; // it is asked for again, from where it is
    this.#outbox.disconnected();
  }

  _end(reason, fatal) {
    if (this.#state === "ended") return;
    this.#state = "ended";
    this.#error = reason;
    this.#fatal = fatal;
    for (const { timer } of this.#typists.values()) clearTimeout(timer);
    this.#inbox = [];
    this.#wire.forget(this);
    this.#outbox.end(reason);
    this.#taps.forEach((tap) => tap.end());
    this.#emit("left", { error: fatal });
  }

  // ---- what comes from the log, in its order ----

  #continues({ id, recovered, rollback }) {
    const before = this.#received;
    if (rollback !== undefined) this.#arrived("rollback", { to: rollback, id }, rollback);
    else if (recovered) this.#arrived("recovered", { after: before, id }, before);
    else this.#arrived(before === undefined ? "joined" : "reset", { id }, id);
  }

  #arrived(event, value, position) {
    this.#received = position;
    this.#inbox.push({ event, value, position });
    if (!this.#running) this.#run();
  }

  async #run() {
    this.#running = true;
    while (this.#inbox.length > 0) {
      const entry = this.#inbox.shift();
      await this.#deliver(entry);
      if (this.#state === "ended") break;
      this.position = entry.position;
    }
    this.#running = false;
    if (this.#behind && this.#state === "joined") this.#rejoin();
  }

  /** Returns when every callback has returned, and what it returned has settled. */
  #deliver(entry) {
    const failed = (error) => this.#wire.report(error);
    const told = this._emit(entry.event, entry.value, failed);
    const breaks = entry.event === "message" || entry.event === "reset" || entry.event === "rollback";
    if (breaks) for (const tap of this.#taps) told.push(tap.take(entry));
    return Promise.all(told.map((result) => (typeof result?.then === "function" ? result.then(undefined, failed) : undefined)));
  }

  /** From where it is. It stays in the room until now: a callback may wait for what it sends there. */
  #rejoin() {
    this.#state = "joining";
    this.#behind = false;
    this.#wire.rejoin(this);
  }

  #emit(event, value) {
    this._emit(event, value, (error) => this.#wire.report(error));
  }

  #typing(who, { from, client_id, payload }) {
    clearTimeout(this.#typists.get(who)?.timer);
    const timer = setTimeout(() => this.#typed(who), TYPING_LASTS_MS);
    this.#typists.set(who, { timer, typist: { from, client_id, payload } });
    this.#tellTyping();
  }

  #typed(who) {
    clearTimeout(this.#typists.get(who)?.timer); // it must not end what is typed next
    this.#typists.delete(who);
    this.#tellTyping();
  }

  #tellTyping() {
    this.#emit("typing", [...this.#typists.values()].map(({ typist }) => typist));
  }
}

/**
 * What is sent to one room: numbered in order, and kept until the log has it and a minute longer. Each frame is answered once;
 * after a refusal nothing is sent until all that is under way is answered, then all goes on from the first that is not stored.
 */
class Outbox {
  #wire;
  #room;
  /** By `n`; those that were never sent have none and come last. */
  #items = [];
  #underWay = 0;
  #window = WINDOW;
  #stalled = false;
  #pausedUntil = 0;
  #timer = 0;

  constructor(wire, room) {
    this.#wire = wire;
    this.#room = room;
  }

  add(type, payload, signal) {
    if (signal?.aborted) return Promise.reject(signal.reason);
    const json = JSON.stringify(payload);
    if (json === undefined) return Promise.reject(new TypeError("the payload is not JSON"));
    if (!this.#wire.reserve()) return Promise.reject(new ChatError("queue_full", "too many messages wait for the connection"));
    return new Promise((resolve, reject) => {
      const item = { n: 0, type, json, state: "waiting", since: 0, settled: false };
      item.settle = (act, value) => {
        if (item.settled) return;
        item.settled = true;
        this.#wire.release();
        signal?.removeEventListener("abort", abort);
        act(value);
      };
      item.stored = (receipt) => item.settle(resolve, receipt);
      item.fail = (error) => item.settle(reject, error);
      const abort = () => {
        // What may be with the server cannot be taken back.
        if (item.n === 0) this.#items = this.#items.filter((other) => other !== item);
        item.fail(signal.reason);
      };
      signal?.addEventListener("abort", abort, { once: true });
      this.#items.push(item);
      this.pump();
    });
  }

  /** Sends what may be sent now. */
  pump() {
    if (!this.#room.joined || this.#stalled) return;
    const now = Date.now();
    if (now < this.#pausedUntil) return;
    this.#forgetOld(now);
    for (const item of [...this.#items]) {
      if (this.#underWay >= this.#window) return;
      if (item.state !== "waiting") continue;
      if (item.n > 0 && now - item.since > COUNTED_MS) {
        this.#giveUp(item, new ChatError("too_old", "it may have been stored long ago: sending it again could double it", { outcome: "unknown" }));
        continue;
      }
      if (!this.#transmit(item, now)) return;
    }
  }

  #transmit(item, now) {
    item.n ||= this.#wire.nextN(this.#room.name);
    item.since ||= now;
    const base = this.#base(item);
    if (base === undefined) return false;
    const { n, type, json } = item;
    const head = JSON.stringify({ type, room: this.#room.name, ref: `m${this.#room._key}.${n}`, sender: this.#wire.sender(), n, base });
    const text = `${head.slice(0, -1)},"payload":${json}}`;
    try {
      if (!this.#wire.sendText(text)) return false;
    } catch (error) {
      this.#giveUp(item, error);
      return true;
    }
    item.state = "sent";
    this.#underWay += 1;
    return true;
  }

  /** The lowest `n` held without a hole up to this one. What is behind a hole waits until all before it is stored. */
  #base(item) {
    let at = this.#items.indexOf(item);
    while (at > 0 && this.#items[at - 1].n === this.#items[at].n - 1) at -= 1;
    const open = this.#items.slice(0, at).some(({ state }) => state !== "stored");
    return open ? undefined : this.#items[at].n;
  }

  stored({ n, id }) {
    const item = this.#answered(n);
    if (!item) return;
    Object.assign(item, { state: "stored", since: Date.now() });
    this.#window = Math.min(this.#window + 1, WINDOW);
    item.stored({ n, id });
    this.#continue();
  }

  refused({ n, code, retryable, last_n: lastN, retry_after_ms: retryMs = 0 }, error) {
    const item = this.#answered(n);
    if (!item) return;
    item.state = "waiting";
    this.#stalled = true;
    if (code === "gap") this.doubt(lastN);
    else if (code === "not_subscribed" && !this.#room.joined) this.#stalled = false; // it is joined again first
    else if (!retryable) this.#giveUp(item, error);
    else this.#pausedUntil = Math.max(this.#pausedUntil, Date.now() + retryMs * (1 + Math.random()));
    if (code === "rate_limited") this.#window = 1;
    this.#continue();
  }

  /** The log may have lost what came after `n`: it is sent again, and stored only where it is missing. */
  doubt(n = 0) {
    for (const item of this.#items) if (item.n > n && item.state === "stored") item.state = "waiting";
  }

  disconnected() {
    clearTimeout(this.#timer);
    for (const item of this.#items) if (item.state === "sent") item.state = "waiting";
    this.#underWay = this.#pausedUntil = 0;
    this.#stalled = false;
  }

  end(reason) {
    clearTimeout(this.#timer);
    for (const item of this.#items.splice(0)) {
      item.fail(new ChatError(reason.code, reason.message, { cause: reason, outcome: item.n > 0 ? "unknown" : "refused" }));
    }
  }

  #answered(n) {
    const item = this.#items.find((other) => other.n === n && other.state === "sent");
    if (item) this.#underWay -= 1;
    return item;
  }

  #continue() {
    if (this.#stalled && this.#underWay > 0) return;
    this.#stalled = false;
    clearTimeout(this.#timer);
    const waitMs = this.#pausedUntil - Date.now();
    if (waitMs > 0) this.#timer = setTimeout(() => this.pump(), waitMs + 1);
    else this.pump();
  }

  #giveUp(item, error) {
    this.#items = this.#items.filter((other) => other !== item);
    item.fail(error);
  }

  #forgetOld(now) {
    const old = ({ since }) => now - since > KEPT_MS || this.#items.length > KEPT;
    while (this.#items[0]?.state === "stored" && old(this.#items[0])) this.#items.shift();
  }
}

/** The server could not say which message it refuses for this: a frame without a readable type has no readable number. */
function faultOfType(type) {
  if (typeof type === "string" && /^[a-z][a-z0-9_.-]{0,63}$/.test(type)) return undefined;
  const said = typeof type === "string" ? JSON.stringify(type.slice(0, 64)) : typeof type;
  return new ChatError("invalid_message", `not the type of a message: ${said}: it matches ^[a-z][a-z0-9_.-]{0,63}$`, { retryable: false });
}

const occupantKey = ({ from, client_id }) => (from === undefined ? `c ${client_id}` : `u ${from}`);

/** 128 random bits. */
function randomId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** As one subprotocol, which is how browsers send it; an error page, or a JWT with a newline, is none. */
function checkToken(token) {
  if (/^[\w.!#$%&'*+^`|~-]*$/.test(token)) return token;
  throw new TypeError("this is no token: a JWT has letters, digits and - _ . only");
}

function noToken(cause) {
  return new ChatError("token", `there is no token that can be sent: ${cause?.message ?? cause}`, { cause });
}

/**
 * How long a JWT that has just come will be valid; Infinity where it does not say. A wrong clock here makes it at most as long as
 * the issuer said; one that is ahead by more than that makes every token look old, and then the issuer's word counts alone.
 */
function lifeMs(token) {
  try {
    const { iat = -Infinity, exp = Infinity } = JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
    const [life, left] = [(exp - iat) * 1000, exp * 1000 - Date.now()];
    return left > ENDING_MS ? Math.min(life, left) : life;
  } catch {
    return Infinity; // not a JWT
  }
}

function retryAfterMs(response) {
  const seconds = Number(response?.headers.get("Retry-After") ?? 0);
  return Number.isFinite(seconds) ? Math.min(seconds * 1000, LONGEST_HINT_MS) : 0;
}

async function problem(response) {
  const { code = "request", detail } = await response.json().catch(() => ({}));
  return new ChatError(code, detail ?? `HTTP ${response.status}`, { status: response.status });
}

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}

/** `AbortSignal.any`, which browsers have had since 2023 only. */
function anyOf(...signals) {
  if (AbortSignal.any) return AbortSignal.any(signals);
  const controller = new AbortController();
  for (const signal of signals) signal.addEventListener("abort", () => controller.abort(signal.reason), { once: true });
  return controller.signal;
}
