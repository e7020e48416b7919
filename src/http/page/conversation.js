// One room as the page knows it: its messages, what is still to be stored, who is there and who types. It follows the room of a chat,
// and another one when the chat is another one. Knows nothing of the DOM: `tell(this, what, detail)` says what has changed.

import { BEGINNING } from "../api/chat-api/client.js";
import { introduce, readable } from "./people.js";
import { drafts, isOwnClient, randomKey } from "./store.js";

/** Messages kept, and shown, per room; the older ones are read again when they are scrolled to. */
export const KEPT = 500;
/** The same while somebody reads the older ones. */
export const HELD = 2_000;
const PAGE = 50;
/** What is sent there reaches everyone: no place for who types. */
export const LOBBY = "lobby";
/** Above so many, sockets without a user id do not tell each other their names: each newcomer would make all of them speak. */
const FEW = 30;
const INTRODUCTION_MS = 300;
const SAVE_DELAY_MS = 200;
/** Errors of the client's own after which the same message would fail in the same way. The server's say so themselves. */
const HOPELESS = new Set(["too_large"]);

export class Conversation {
  /** Of messages, `{id, name, text, time, own, type?, key?}`; and of notes about the room, `{note}`. */
  items = [];
  /** Written here and not in `items` yet: `{key, name, text, state: "pending" | "stored" | "failed", note?, retryable?}`. */
  pending = [];
  unread = 0;
  /** The first of the unread ones. */
  unreadFrom = null;
  /** Where the messages before the first of `items` are; null: there are none. */
  cursor = null;
  problem = null;
  /** Why no more comes from here. */
  ended = null;
  typists = [];
  presence = { count: 0, here: undefined };
  /** Whether it is on the screen, at its end. */
  seen = false;
  /** Whether somebody reads the older messages. */
  held = false;
  position = undefined;
  #room = null;
  /** The cursor at which older messages are being read. */
  #reading = null;
  #session;
  #tell;
  #known = new Set();
  #absence = 0;
  #introduction = 0;
  #saving = 0;

  constructor(name, session, tell) {
    this.name = name;
    this.#session = session;
    this.#tell = (what, detail) => tell(this, what, detail);
    const note = "The page was closed before the server confirmed this. It may have arrived all the same.";
    this.pending = drafts.of(name).map((draft) => ({ ...draft, state: "failed", note, retryable: true }));
  }

  get joined() {
    return this.#room?.joined ?? false;
  }

  /** Whether the messages before the first of `items` are being read; what is read at another cursor does not count any more. */
  get reading() {
    return this.cursor !== null && this.#reading === this.cursor;
  }

  /** Follows this room of a chat from now on. */
  follow(room) {
    this.#room = room;
    this.#reading = null;
    this.ended = null;
    const on = (event, listener) => room.on(event, (value) => (this.#room === room ? listener(value) : undefined));
    on("joined", ({ id }) => this.#startOver(id));
    on("recovered", ({ after, id }) => this.#recovered(after !== id));
    on("reset", ({ id }) => this.#startOver(id, "The history was reset: the server no longer has what was here. This is what it has."));
    on("rollback", ({ to }) => this.#rolledBack(to));
    on("message", (message) => this.#received(message));
    on("ephemeral", (message) => introduce(message) && this.#tell("people"));
    on("typing", (typists) => this.#typing(typists));
    on("presence", (presence) => this.#presence(presence));
    on("left", ({ error }) => this.#left(error));
    this.#tell("state");
  }

  leave() {
    clearTimeout(this.#introduction);
    this.pending = [];
    this.save();
    const room = this.#room;
    this.#room = null;
    room?.leave();
  }

  // ---- what comes ----

  /** Nothing is shown before its past has been read, or could not be: messages wait for that. */
  async #startOver(id, note) {
    const hadSome = this.items.length > 0;
    this.items = hadSome && note ? [{ note }] : [];
    this.#known.clear();
    this.cursor = id === BEGINNING ? null : { through: id };
    this.position = id;
    this.#tell("anew");
    this.#introduceSoon();
    await this.older();
    this.pending.filter(({ state }) => state === "stored").forEach((item) => this.#forget(item));
  }

  #recovered(missedSome) {
    this.#introduceSoon();
    const { number, ms } = this.#session.absence;
    if (number === this.#absence) return; // not the connection's fault: what came was too much at once
    this.#absence = number;
    const away = `You were away for ${Math.max(1, Math.round(ms / 1000))} s. `;
    this.#note(away + (missedSome ? "Nothing is missing: this came meanwhile." : "Nothing was missed."), "away");
  }

  #rolledBack(to) {
    const end = this.items.findIndex(({ id }) => id === to) + 1;
    const kept = this.items.slice(0, end);
    const lost = this.items.slice(end).filter(({ id }) => id !== undefined);
    if (end === 0) this.cursor = to === BEGINNING ? null : { through: to };
    this.items = kept;
    for (const item of lost) marks(item).forEach((mark) => this.#known.delete(mark));
    this.position = to;
    this.#absence = this.#session.absence.number;
    this.#tell("anew");
    const messages = lost.length === 1 ? "one message that was" : `${lost.length} messages that were`;
    this.#note(`Rolled back: the server has lost ${messages} here. What you sent of it within a minute is sent again.`);
    if (end === 0) return this.older();
  }

  #received(message) {
    this.position = message.id;
    if (introduce(message)) this.#tell("people");
    const item = readable(message, this.#session.me);
    this.#arrived(item.key);
    if (this.#isKnown(item)) return;
    this.#remember(item);
    if (!item.own && !(this.seen && !document.hidden)) {
      this.unread += 1;
      this.unreadFrom ??= item;
    }
    this.#append(item);
    if (!item.own) this.#tell("unread");
  }

  #note(note, kind) {
    const last = this.items.at(-1);
    if (kind && last?.kind === kind) {
      this.items.pop();
      this.#tell("retracted");
    }
    this.#append({ note, kind });
  }

  #append(item) {
    this.items.push(item);
    this.#tell("message", item);
    this.trim();
  }

  /** Keeps what is held bounded. */
  trim() {
    const surplus = this.items.length - (this.held ? HELD : KEPT);
    if (surplus <= 0) return;
    for (const item of this.items.splice(0, surplus)) marks(item).forEach((mark) => this.#known.delete(mark));
    const first = this.items.find(({ id }) => id !== undefined);
    if (first) this.cursor = { before: first.id };
    this.#tell("trimmed", surplus);
  }

  /** Reads some of the messages before those that are here. */
  async older() {
    const { cursor } = this;
    const room = this.#room;
    if (!cursor || !room || this.reading || this.items.length >= HELD) return;
    const isFirst = () => cursor === this.cursor && room === this.#room; // else others are the first by now
    this.#reading = cursor;
    this.problem = null;
    this.#tell("reading");
    let found = [];
    try {
      const { messages } = await room.history({ ...cursor, limit: PAGE });
      if (!isFirst()) return this.#tell("older", found);
      messages.forEach(introduce);
      found = messages.map((message) => readable(message, this.#session.me)).filter((item) => !this.#isKnown(item));
      found.forEach((item) => this.#remember(item));
      found.forEach(({ key }) => this.#arrived(key));
      this.items.unshift(...found);
      this.cursor = messages.length > 0 ? { before: messages[0].id } : null;
    } catch (error) {
      if (!isFirst()) return this.#tell("older", found);
      this.problem = error;
    }
    this.#reading = null;
    this.#tell("older", found);
  }

  #left(error) {
    this.ended = error ?? null;
    this.typists = [];
    this.#tell("state");
  }

  // ---- who is there ----

  #presence({ count, here, joined }) {
    this.presence = { count, here };
    this.#tell("people");
    if (joined.some(({ client_id: id }) => !isOwnClient(id))) this.#introduceSoon();
  }

  /** Sockets without a user id are told apart by what they call themselves: newcomers are told, and tell. */
  #introduceSoon() {
    if (this.presence.count > FEW || this.#introduction) return;
    this.#introduction = setTimeout(() => {
      this.#introduction = 0;
      this.introduce();
    }, INTRODUCTION_MS * (1 + Math.random()));
  }

  introduce() {
    if (!this.#session.me && this.name !== LOBBY) this.#room?.signal("here", { name: this.#session.name });
  }

  #typing(typists) {
    typists.forEach(introduce);
    this.typists = typists;
    this.#tell("typing");
  }

  /** Tells the others that something is being written. */
  writing() {
    if (this.name !== LOBBY) this.#room?.typing({ name: this.#session.name });
  }

  read() {
    this.unread = 0;
    this.#tell("unread");
  }

  // ---- what is sent ----

  send(text) {
    const item = { key: randomKey(), name: this.#session.name, text, state: "pending" };
    this.pending.push(item);
    this.#transmit(item);
  }

  retry(item) {
    Object.assign(item, { state: "pending", note: "", retryable: false });
    this.#transmit(item);
  }

  discard(item) {
    this.#forget(item);
  }

  #transmit(item) {
    this.#tell("pending", item);
    this.#save();
    const { key, name, text } = item;
    const sent = this.#room ? this.#room.send({ name, text, key }) : Promise.reject(new Error("this room was left"));
    sent.then(() => this.#settled(item, { state: "stored" }), (error) => this.#failed(item, error));
  }

  #failed(item, { code, message, retryable = true, outcome }) {
    const maybe = outcome === "unknown" ? " It may have arrived all the same." : "";
    this.#settled(item, { state: "failed", note: `Not sent: ${message}.${maybe}`, retryable: retryable && !HOPELESS.has(code) });
  }

  #settled(item, change) {
    if (!this.pending.includes(item)) return; // it has come back already
    Object.assign(item, change);
    this.#tell("pending", item);
  }

  #arrived(key) {
    const item = key && this.pending.find((other) => other.key === key);
    if (item) this.#forget(item);
  }

  #forget(item) {
    this.pending = this.pending.filter((other) => other !== item);
    this.#tell("settled", item);
    this.#save();
  }

  /** Saves soon: a thousand messages that wait are written once, not a thousand times. */
  #save() {
    this.#saving ||= setTimeout(() => this.save(), SAVE_DELAY_MS);
  }

  save() {
    clearTimeout(this.#saving);
    this.#saving = 0;
    drafts.save(this.name, this.pending);
  }

  // ---- each message once ----

  /** The same id; or the same key: a second try of a message whose first had arrived. */
  #isKnown(item) {
    return marks(item).some((mark) => this.#known.has(mark));
  }

  #remember(item) {
    marks(item).forEach((mark) => this.#known.add(mark));
  }
}

// The two kinds of mark must not meet: a sender chooses its key, and could name the id of another's message.
function marks({ id, key }) {
  if (id === undefined) return [];
  return key ? [`id ${id}`, `key ${key}`] : [`id ${id}`];
}
