// The page: shows a room, its connection and what was written here. Text from others only ever becomes text nodes.

import { Connection } from "./connection.js";
import { KEPT, Room, isRoomName, randomKey, readable, settings } from "./store.js";

const DEFAULT_ROOM = "general";
const LOBBY = "lobby";
/** Messages of one author within this time stand under one name. */
const TOGETHER_MS = 5 * 60_000;
/** A room counts as caught up after so long without a message. */
const SETTLED_MS = 400;

const $ = (id) => document.getElementById(id);
const [log, messages, outbox, status, countdown] = ["log", "messages", "outbox", "status", "countdown"].map($);
const phone = matchMedia("(max-width: 45rem)");

let room = null;
let connection = null;
let name = settings.name();
let token = settings.token();

function element(tag, className = "", text = "") {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}

function button(label, onClick) {
  const node = element("button", "quiet", label);
  node.type = "button";
  node.addEventListener("click", onClick);
  return node;
}

// ---- rooms ---------------------------------------------------------------------------------------------------------

function roomInAddress() {
  try {
    return decodeURIComponent(location.hash.slice(1)) || DEFAULT_ROOM;
  } catch {
    return location.hash.slice(1);
  }
}

function badName(wanted) {
  return `“${wanted.slice(0, 60)}” cannot be a room: a name has 1 to 128 letters (a–z), digits or _ . -`;
}

function enterRoom() {
  leaveRoom();
  const wanted = roomInAddress();
  const valid = isRoomName(wanted);
  document.title = $("title").textContent = valid ? `#${wanted}` : "No such room";
  $("text").disabled = !valid;
  $("empty").hidden = !valid;
  if (!valid) {
    showState({ name: "stopped" });
    return notify(badName(wanted));
  }
  room = new Room(wanted);
  rememberRoom(wanted);
  room.messages.forEach(showMessage);
  room.outbox.forEach((item) => item.state === "sending" && markUnconfirmed(item));
  showOutbox();
  follow();
  connect();
}

function leaveRoom() {
  connection?.close();
  room?.saveNow();
  connection = room = lastShown = null;
  messages.replaceChildren();
  outbox.replaceChildren();
  $("newer").hidden = $("notice").hidden = true;
  following = true;
  setMenu(false);
}

function rememberRoom(wanted) {
  const known = settings.rooms();
  if (!known.includes(wanted)) settings.setRooms([...known, wanted]);
  showRooms();
}

function showRooms() {
  const known = settings.rooms();
  const names = room && !known.includes(room.name) ? [...known, room.name] : known; // without storage: this one
  $("rooms").replaceChildren(...names.map(roomItem));
}

function roomItem(known) {
  const link = element("a", "", `#${known}`);
  link.href = `#${known}`;
  const item = element("li");
  item.append(link);
  if (known === room?.name) {
    link.setAttribute("aria-current", "page");
    return item;
  }
  const forget = button("×", () => {
    settings.setRooms(settings.rooms().filter((other) => other !== known));
    showRooms();
    $("join-room").focus();
  });
  forget.setAttribute("aria-label", `Forget #${known}`);
  item.append(forget);
  return item;
}

// ---- connection ----------------------------------------------------------------------------------------------------

function connect() {
  connection?.close();
  connection = null;
  const entered = room;
  settling();
  connection = new Connection({
    room: entered.name,
    token,
    position: () => entered.position,
    onState: showState,
    onFrame: receive,
  });
}

const STATE_WORDS = { connecting: "connecting…", open: "connected", waiting: "reconnecting", stopped: "not connected" };
let ticking = 0;

function showState(state) {
  clearInterval(ticking);
  countdown.textContent = "";
  // "connecting" within a series of tries is not worth a flicker, or a word from a screen reader.
  if (state.name !== "connecting" || status.dataset.state !== "waiting") {
    status.textContent = STATE_WORDS[state.name];
    status.dataset.state = state.name;
  }
  $("reconnect").hidden = !room || (state.name !== "waiting" && state.name !== "stopped");
  if (state.name === "open") return opened();
  if (state.name === "waiting") {
    room.outbox.forEach((item) => item.state === "sending" && markUnconfirmed(item));
    showOutbox();
    countDown(Date.now() + state.waitMs);
    if (state.failures >= 2) notify("The server did not accept the connection. It may be down, or it may need a token (see Settings).");
  }
  if (state.code) stopped(state);
}

function opened() {
  $("notice").hidden = true;
  settling();
  room.outbox.filter(({ state }) => state === "unsent").forEach(dispatch);
  showOutbox();
}

function stopped({ code, reason }) {
  notify(`The server closed the connection (${code}): ${reason || "no reason given"}`);
  if (code === 4401) {
    setMenu(true);
    $("settings").open = true;
    $("token").focus();
  }
}

function countDown(until) {
  const show = () => {
    countdown.textContent = `in ${Math.max(0, Math.ceil((until - Date.now()) / 1000))} s…`;
  };
  show();
  ticking = setInterval(show, 1000);
}

let settled = 0;

/** While old messages stream in, a screen reader should not read them all out. */
function settling() {
  log.ariaBusy = "true";
  clearTimeout(settled);
  settled = setTimeout(() => (log.ariaBusy = "false"), SETTLED_MS);
}

// ---- frames --------------------------------------------------------------------------------------------------------

function receive(frame) {
  if (frame.type === "ack") return update(frame.ref, { state: "sent", note: "sent" });
  if (frame.type === "error") return refused(frame);
  if (typeof frame.room !== "string" || typeof frame.id !== "string") return; // a pong, or not to be kept
  if (frame.room === room.name) return received(frame);
  if (frame.room === LOBBY) announce(readable(frame));
}

function received(frame) {
  if (log.ariaBusy === "true") settling();
  const waiting = room.outbox.length;
  const message = room.receive(frame);
  if (room.outbox.length !== waiting) showOutbox();
  if (!message) return;
  showMessage(message);
  follow();
  if (document.hidden && !message.own) {
    unread += 1;
    document.title = `(${unread}) #${room.name}`;
  }
}

let unread = 0;

function seen() {
  if (document.hidden || !room) return;
  unread = 0;
  document.title = `#${room.name}`;
}

function refused({ ref, message, code, retryable, outcome }) {
  const maybe = outcome === "unknown" ? " (it may have arrived all the same)" : "";
  const reason = `${message || code}${maybe}`;
  if (!update(ref, { state: "failed", note: `Not sent: ${reason}`, retryable })) notify(`The server refused a message: ${reason}`);
}

function notify(text) {
  showStrip("notice", text);
}

function announce({ name: author, text }) {
  showStrip("announcement", `${author} to everyone: ${text}`);
}

function showStrip(id, text) {
  $(id).hidden = false;
  $(id).querySelector("p").textContent = text;
}

// ---- sending -------------------------------------------------------------------------------------------------------

function post(text) {
  const item = { key: randomKey(), name, text };
  room.outbox.push(item);
  dispatch(item);
  showOutbox();
  following = true;
  follow();
}

function dispatch(item) {
  const { key, name: author, text } = item;
  const sent = connection.send({ type: "chat", ref: key, payload: { name: author, text, key } });
  Object.assign(item, sent ? { state: "sending", note: "sending…" } : { state: "unsent", note: "waiting for the connection" });
  room.save();
}

// If it did arrive, the resumed connection will bring it back and so confirm it. Until then nobody knows.
function markUnconfirmed(item) {
  Object.assign(item, { state: "failed", note: "The connection broke before the server confirmed this.", retryable: true });
  room.save();
}

function update(key, change) {
  const item = room.outbox.find((other) => other.key === key);
  if (!item) return false;
  Object.assign(item, change);
  room.save();
  showOutbox();
  return true;
}

function discard(item) {
  room.outbox = room.outbox.filter((other) => other !== item);
  room.save();
  showOutbox();
  $("text").focus();
}

function showOutbox() {
  outbox.replaceChildren(...room.outbox.map(outboxItem));
  showEmpty();
  follow();
}

function outboxItem(item) {
  const node = element("li", `message own ${item.state}`);
  const note = element("p", "state", item.note);
  node.append(textOf(item), note);
  if (item.state === "failed") {
    const again = () => {
      dispatch(item);
      showOutbox();
      $("text").focus();
    };
    if (item.retryable) note.append(button("Retry", again));
    note.append(button("Discard", () => discard(item)));
  }
  return node;
}

// ---- messages ------------------------------------------------------------------------------------------------------

let lastShown = null;

function showMessage(message) {
  const node = element("li", message.own ? "message own" : "message");
  const author = element("bdi", "name", message.name);
  author.style.setProperty("--hue", hueOf(message.name));
  const head = element("p", "head");
  head.append(author, timeOf(message));
  if (message.type) head.append(element("span", "type", message.type));
  if (message.own) head.append(element("span", "state", "✓ sent"));
  if (continues(message)) node.classList.add("continues");
  node.append(head, textOf(message));
  messages.append(node);
  lastShown = message;
  if (messages.childElementCount > KEPT) messages.firstElementChild.remove();
  showEmpty();
}

function showEmpty() {
  $("empty").hidden = messages.hasChildNodes() || outbox.hasChildNodes();
}

function continues(message) {
  const { name: author, own, time } = lastShown ?? {};
  return author === message.name && own === message.own && Date.parse(message.time) - Date.parse(time) < TOGETHER_MS;
}

function textOf({ text }) {
  const node = element("p", "text", text);
  node.dir = "auto";
  return node;
}

function timeOf({ time }) {
  const node = element("time");
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return node;
  const today = at.toDateString() === new Date().toDateString();
  node.dateTime = time;
  node.title = at.toLocaleString();
  node.textContent = at.toLocaleString([], { timeStyle: "short", ...(!today && { dateStyle: "medium" }) });
  return node;
}

/** One of twelve hues, the same for a name everywhere. */
function hueOf(author) {
  let hash = 0;
  for (const char of author) hash = (Math.imul(hash, 31) + char.codePointAt(0)) >>> 0;
  return (hash % 12) * 30;
}

// Stay at the newest message unless the reader has scrolled up.
let following = true;

function follow() {
  if (following) requestAnimationFrame(() => (log.scrollTop = log.scrollHeight));
  else $("newer").hidden = false;
}

// ---- wiring --------------------------------------------------------------------------------------------------------

function setMenu(open) {
  $("panel").classList.toggle("open", open);
  $("menu").setAttribute("aria-expanded", String(open));
}

function on(id, event, handler) {
  $(id).addEventListener(event, handler);
}

on("menu", "click", () => setMenu(!$("panel").classList.contains("open")));
on("reconnect", "click", () => connection?.reconnect());
on("newer", "click", () => {
  following = true;
  follow();
});
on("log", "scroll", () => {
  following = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  if (following) $("newer").hidden = true;
});
for (const id of ["notice", "announcement"]) {
  $(id).querySelector("button").addEventListener("click", () => ($(id).hidden = true));
}

on("composer", "submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || !room) return;
  $("text").value = "";
  post(text);
});
on("text", "keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("composer").requestSubmit();
});

on("join", "submit", (event) => {
  event.preventDefault();
  const wanted = $("join-room").value.trim().replace(/^#/, "");
  if (!isRoomName(wanted)) return notify(badName(wanted));
  $("join-room").value = "";
  setMenu(false);
  location.hash = wanted;
});

on("name", "change", () => {
  name = $("name").value.trim() || name;
  $("name").value = name;
  settings.setName(name);
});

on("credentials", "submit", (event) => {
  event.preventDefault();
  const wanted = $("token").value.trim();
  if (!/^[A-Za-z0-9_.-]*$/.test(wanted)) return notify("That is not a token: it has only letters, digits and _ . -");
  token = wanted;
  settings.setToken(token);
  $("notice").hidden = true;
  setMenu(false);
  if (room) connect();
});

$("name").value = name;
settings.setName(name);
$("token").value = token;
addEventListener("hashchange", enterRoom);
addEventListener("pagehide", () => room?.saveNow());
addEventListener("resize", () => following && follow());
document.addEventListener("visibilitychange", seen);
enterRoom();
if (!phone.matches) $("text").focus();
