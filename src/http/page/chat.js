// The page: joins the room in the address, sends what is written, and shows the room and the state of its connection.

import { Connection } from "./connection.js";
import { KEPT, Room, isRoomName, randomKey, readable, settings } from "./store.js";
import { messageRow, outboxRow, roomRow } from "./rows.js";

const DEFAULT_ROOM = "general";
const LOBBY = "lobby";
/** A room counts as caught up after so long without a message. */
const SETTLED_MS = 400;

const $ = (id) => document.getElementById(id);
const [log, messages, outbox, status, countdown] = ["log", "messages", "outbox", "status", "countdown"].map($);
const phone = matchMedia("(max-width: 45rem)");

let room = null;
let connection = null;
let name = settings.name();
let token = settings.token();

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
  if (!valid) {
    showState({ name: "stopped" });
    return notify(badName(wanted));
  }
  room = new Room(wanted);
  rememberRoom(wanted);
  room.messages.forEach(showMessage);
  connect();
  follow();
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
  $("rooms").replaceChildren(...names.map((known) => roomRow(known, known === room?.name, forget)));
}

function forget(known) {
  settings.setRooms(settings.rooms().filter((other) => other !== known));
  showRooms();
  $("join-room").focus();
}

// ---- connection ----------------------------------------------------------------------------------------------------

function connect() {
  connection?.close();
  connection = null;
  const entered = room;
  doubtUnconfirmed();
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
  if (state.name !== "connecting") doubtUnconfirmed();
  if (state.name === "waiting") {
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
  const words = $(id).querySelector("p");
  if ($(id).hidden || words.textContent !== text) words.textContent = text; // else it would be read out again
  $(id).hidden = false;
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

/** Without its connection, nobody here knows of a message under way. If it did arrive, resuming will bring it back. */
function doubtUnconfirmed() {
  for (const item of room?.outbox ?? []) {
    if (item.state !== "sending" && item.state !== "sent") continue;
    Object.assign(item, { state: "failed", note: "The connection broke before the server confirmed this.", retryable: true });
    room.save();
  }
  showOutbox();
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
  outbox.replaceChildren(...(room?.outbox ?? []).map((item) => outboxRow(item, retry, discard)));
  showEmpty();
  follow();
}

function retry(item) {
  dispatch(item);
  showOutbox();
  $("text").focus();
}

// ---- messages ------------------------------------------------------------------------------------------------------

let lastShown = null;

function showMessage(message) {
  messages.append(messageRow(message, lastShown));
  lastShown = message;
  if (messages.childElementCount > KEPT) messages.firstElementChild.remove();
  showEmpty();
}

function showEmpty() {
  $("empty").hidden = !room || messages.hasChildNodes() || outbox.hasChildNodes();
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
// Away from the end by the reader's own hand: not where the list or the window has just changed its height.
let [listHeight, windowHeight] = [0, 0];
on("log", "scroll", () => {
  const { scrollHeight, scrollTop, clientHeight } = log;
  const changed = scrollHeight !== listHeight || clientHeight !== windowHeight;
  [listHeight, windowHeight] = [scrollHeight, clientHeight];
  if (scrollHeight - scrollTop - clientHeight < 40) following = true;
  else if (!changed) following = false;
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
new ResizeObserver(() => following && follow()).observe(log); // a keyboard or a strip came or went
document.addEventListener("visibilitychange", seen);
enterRoom();
if (!phone.matches) $("text").focus();
