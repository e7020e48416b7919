// The page: follows the rooms of its list, shows the one in the address, and sends what is written.

import { LOBBY } from "./conversation.js";
import { record } from "./frames.js";
import { setOpen, showPeople, showRooms } from "./panel.js";
import { Session } from "./session.js";
import { announce, hideStrips, notify, showState } from "./status.js";
import { forgetUser, isRoomName, settings } from "./store.js";
import * as timeline from "./timeline.js";
import * as tokens from "./token.js";

const DEFAULT_ROOM = "general";
/** What the server says of signs of typing that it does not pass on is nobody's concern. */
const UNCONCERNING = new Set(["forbidden", "rate_limited"]);

const $ = (id) => document.getElementById(id);
const phone = matchMedia("(max-width: 45rem)");

const session = new Session(settings.name(), {
  token: (why) => {
    const token = tokens.token(why);
    showState(session.state);
    return token;
  },
  state: stateChanged,
  error: ({ code, message }) => UNCONCERNING.has(code) || notify(message),
  frame: record,
  conversation: conversationChanged,
  anotherUser: () => {
    isLeaving = true;
    forgetUser();
    location.reload();
  },
});
let present = null;
/** Nothing is saved any more. */
let isLeaving = false;

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
  const wanted = roomInAddress();
  const valid = isRoomName(wanted);
  hideStrips();
  setOpen(false);
  present = valid ? session.join(wanted) : null;
  document.title = $("title").textContent = valid ? `#${wanted}` : "No such room";
  if (valid) remember();
  else notify(badName(wanted));
  timeline.show(present);
  showRoom();
  if (!phone.matches) $("text").focus();
}

function remember() {
  settings.setRooms(session.conversations.map(({ name }) => name).filter((name) => name !== LOBBY));
}

function leaveRoom(name) {
  session.leave(name);
  remember();
  const next = session.conversations.find((other) => other.name !== LOBBY)?.name ?? DEFAULT_ROOM;
  if (present?.name !== name) showRoom();
  else if (next === name) enterRoom();
  else location.hash = next;
  $("join-room").focus();
}

/** All about the present room but its messages. */
function showRoom() {
  showRooms(session.conversations, present, leaveRoom);
  showPeople(present, session.me ?? session.name);
  const { ended = null } = present ?? {};
  const closed = session.state.name === "closed";
  $("ended").hidden = !ended || closed;
  $("ended").querySelector("p").textContent = ended && !closed ? `You are not in this room: ${ended.message}` : "";
  $("text").disabled = !present || (ended !== null && !closed);
}

// ---- what happens --------------------------------------------------------------------------------------------------

function stateChanged(state) {
  const { error, ...shown } = state;
  record({ at: Date.now(), way: "state", frame: error ? { ...shown, code: error.code, message: error.message } : shown });
  showState(state);
  timeline.connected(state.name === "open");
  $("name").disabled = session.me !== undefined;
  $("name").value = session.me ?? session.name;
  showRoom();
}

function conversationChanged(conversation, what, detail) {
  timeline.changed(conversation, what, detail);
  if (what === "people" && conversation === present) showPeople(present, session.me ?? session.name);
  else if (what === "unread" || what === "state") showRoom();
  if (what === "message" && conversation.name === LOBBY && conversation !== present && detail.note === undefined) announce(detail);
}

// ---- wiring --------------------------------------------------------------------------------------------------------

function on(id, event, handler) {
  $(id).addEventListener(event, handler);
}

function restart() {
  tokens.forget();
  session.start();
}

on("reconnect", "click", () => (session.state.name === "closed" ? restart() : session.reconnect()));
for (const id of ["enter-token", "change-token"]) on(id, "click", () => tokens.ask(restart));
on("rejoin", "click", () => {
  session.join(present.name);
  showRoom();
});

on("composer", "submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || !present) return;
  $("text").value = "";
  present.send(text);
  timeline.follow();
});
on("text", "keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  $("composer").requestSubmit();
});
on("text", "input", () => $("text").value.trim() && present?.writing());

on("join", "submit", (event) => {
  event.preventDefault();
  const wanted = $("join-room").value.trim().replace(/^#/, "");
  if (!isRoomName(wanted)) return notify(badName(wanted));
  $("join-room").value = "";
  setOpen(false);
  location.hash = wanted;
});

on("name", "change", () => {
  session.rename($("name").value.trim() || session.name);
  $("name").value = session.name;
  settings.setName(session.name);
});

settings.setName(session.name);
addEventListener("hashchange", enterRoom);
for (const event of ["online", "offline"]) addEventListener(event, () => showState(session.state));
addEventListener("pagehide", () => isLeaving || session.conversations.forEach((conversation) => conversation.save()));
document.addEventListener("visibilitychange", timeline.looked);
for (const name of [LOBBY, ...settings.rooms()]) session.join(name);
session.start();
enterRoom();
