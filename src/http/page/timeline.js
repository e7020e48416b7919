// Shows one conversation: its messages, what is still to be stored, who types; stays at the newest message unless the reader has scrolled
// up, and reads older ones when their place comes into view.

import { HELD } from "./conversation.js";
import { nameOf } from "./people.js";
import { button, continues, element, itemRow, pendingRow } from "./rows.js";

/** A room counts as caught up after so long without a message. */
const SETTLED_MS = 400;
/** How near to the end still is at the end, in pixels. */
const NEAR_PX = 40;
/** Older messages are read when they are this near. */
const AHEAD_PX = 400;

const $ = (id) => document.getElementById(id);
const [log, messages, outbox, older, newer, empty, typing] = ["log", "messages", "outbox", "older", "newer", "empty", "typing"].map($);

let conversation = null;
let isConnected = false;
/** The rows of what is pending, by its key. */
const pendingRows = new Map();
let divider = null;

// ---- the whole of it -----------------------------------------------------------------------------------------------

/** Shows this conversation, or none. */
export function show(shown) {
  if (conversation !== shown) hide();
  conversation = shown;
  following = true;
  render();
  scroll();
}

function hide() {
  if (!conversation) return;
  Object.assign(conversation, { seen: false, held: false, unreadFrom: null });
  conversation.trim();
  conversation = null;
}

function render() {
  settling();
  const items = conversation?.items ?? [];
  divider = null;
  messages.replaceChildren(...items.map((item, index) => itemRow(item, items[index - 1])));
  const firstUnread = items.indexOf(conversation?.unreadFrom);
  if (firstUnread >= 0) {
    divider = element("li", "divider", "New");
    messages.children[firstUnread].before(divider);
  }
  pendingRows.clear();
  outbox.replaceChildren();
  conversation?.pending.forEach(showPending);
  showOlder();
  showTyping();
}

let settled = 0;

/** While old messages stream in, a screen reader should not read them all out. */
function settling() {
  log.ariaBusy = "true";
  clearTimeout(settled);
  settled = setTimeout(() => (log.ariaBusy = "false"), SETTLED_MS);
}

// ---- what changes --------------------------------------------------------------------------------------------------

/** Something has happened in a conversation; only that of the one on the screen is shown. */
export function changed(where, what, detail) {
  if (where === conversation) changes[what]?.(detail);
}

const changes = {
  anew: () => (render(), scroll()),
  message: (item) => {
    if (log.ariaBusy === "true") settling();
    messages.append(itemRow(item, conversation.items.at(-2)));
    showEmpty();
    scroll();
  },
  retracted: () => messages.lastElementChild.remove(),
  trimmed: (count) => {
    for (let removed = 0; removed < count; ) {
      if (messages.firstElementChild === divider) divider = null;
      else removed += 1;
      messages.firstElementChild.remove();
    }
    const [first] = conversation.items;
    if (first) messages.firstElementChild.classList.toggle("continues", continues(first));
    showOlder();
  },
  reading: () => showOlder(),
  older: (found) => prepend(found),
  pending: (item) => (showPending(item), scroll()),
  settled: (item) => {
    pendingRows.get(item.key)?.remove();
    pendingRows.delete(item.key);
    showEmpty();
  },
  typing: () => showTyping(),
};

export function connected(is) {
  isConnected = is;
  conversation?.pending.filter(({ state }) => state === "pending").forEach(showPending);
}

function showPending(item) {
  const act = (what) => () => {
    conversation[what](item);
    $("text").focus();
  };
  const row = pendingRow(item, isConnected, act("retry"), act("discard"));
  if (pendingRows.has(item.key)) pendingRows.get(item.key).replaceWith(row);
  else outbox.append(row);
  pendingRows.set(item.key, row);
  showEmpty();
}

/** What the reader sees stays where it is. */
function prepend(found) {
  settling();
  const fromEnd = log.scrollHeight - log.scrollTop;
  const { items } = conversation;
  const next = items[found.length];
  if (next) messages.firstElementChild.classList.toggle("continues", continues(next, found.at(-1)));
  messages.prepend(...found.map((item, index) => itemRow(item, found[index - 1])));
  showOlder();
  if (following) scroll();
  else log.scrollTop = log.scrollHeight - fromEnd;
  // Still in view, it would not be seen to come into view.
  watcher.unobserve(older);
  watcher.observe(older);
}

const watcher = new IntersectionObserver(([{ isIntersecting }]) => isIntersecting && !conversation?.problem && conversation?.older(), {
  root: log,
  rootMargin: `${AHEAD_PX}px 0px 0px 0px`,
});
watcher.observe(older);

function showOlder() {
  const { cursor, reading, problem, items = [] } = conversation ?? {};
  if (reading) older.textContent = "Reading older messages…";
  else if (problem) older.replaceChildren(`The older messages could not be read: ${problem.message}. `, button("Retry", () => conversation.older()));
  else if (cursor) older.textContent = items.length >= HELD ? `Not more than ${HELD} messages are shown.` : "";
  else older.textContent = items.length === 0 ? "" : "This is the beginning of what is kept.";
  showEmpty();
}

function showEmpty() {
  const { items, pending, reading, cursor, joined } = conversation ?? { items: [] };
  empty.hidden = !joined || reading || Boolean(cursor) || items.length > 0 || pending.length > 0;
}

function showTyping() {
  const names = [...new Set((conversation?.typists ?? []).map(nameOf))];
  const some = names.length > 3 ? [...names.slice(0, 2), `${names.length - 2} others`] : names;
  const list = new Intl.ListFormat("en").format(some);
  typing.textContent = names.length === 0 ? "" : `${list} ${names.length === 1 ? "is" : "are"} typing…`;
}

// ---- scrolling -----------------------------------------------------------------------------------------------------

let following = true;
let scheduled = 0;

/** To the newest message, unless the reader is elsewhere. */
function scroll() {
  if (following) scheduled ||= requestAnimationFrame(toTheEnd);
  mark();
}

function toTheEnd() {
  scheduled = 0;
  if (following) log.scrollTop = log.scrollHeight;
}

/** Tells the conversation what the reader sees of it. */
function mark() {
  if (!conversation) return;
  const wasHeld = conversation.held;
  conversation.held = !following;
  conversation.seen = following;
  if (wasHeld && following) conversation.trim();
  if (following && !document.hidden && conversation.unread > 0) conversation.read();
  const { unread } = conversation;
  if (newer.hidden !== following) newer.hidden = following;
  const label = unread === 0 ? "To the newest ↓" : `${unread} new ↓`;
  if (newer.textContent !== label) newer.textContent = label; // at each scroll, the same would be laid out again
}

/** The page was looked at, or is not any more. */
export const looked = () => mark();

export function follow() {
  following = true;
  scroll();
}

newer.addEventListener("click", () => {
  follow();
  log.focus();
});
// Away from the end by the reader's own hand: not where the list or the window has just changed its height.
let [listHeight, windowHeight] = [0, 0];
log.addEventListener("scroll", () => {
  const { scrollHeight, scrollTop, clientHeight } = log;
  const same = scrollHeight === listHeight && clientHeight === windowHeight;
  [listHeight, windowHeight] = [scrollHeight, clientHeight];
  if (scrollHeight - scrollTop - clientHeight < NEAR_PX) following = true;
  else if (same) following = false;
  mark();
});
const resized = new ResizeObserver(() => following && scroll()); // a keyboard or a strip came or went, or rows got their true height
for (const node of [log, messages, outbox]) resized.observe(node);
