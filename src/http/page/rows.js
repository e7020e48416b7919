// Builds the rows of the page's lists. What others wrote only ever becomes text nodes, never markup.

import { hueOf } from "./people.js";

/** Messages of one author within this time stand under one name. */
const TOGETHER_MS = 5 * 60_000;

export function element(tag, className = "", text = "") {
  const node = document.createElement(tag);
  node.className = className;
  node.textContent = text;
  return node;
}

export function button(label, onClick) {
  const node = element("button", "quiet", label);
  node.type = "button";
  node.addEventListener("click", onClick);
  return node;
}

/** A room to go to, which can be left unless `leave` is missing. */
export function roomRow({ name, unread, ended }, isPresent, leave) {
  const row = element("li");
  const link = element("a", "", `#${name}`);
  link.href = `#${name}`;
  if (isPresent) link.setAttribute("aria-current", "page");
  row.append(link);
  if (unread > 0) {
    const badge = element("span", "badge", unread > 99 ? "99+" : String(unread));
    badge.append(element("span", "unseen", " unread"));
    link.append(badge);
  }
  if (ended) link.append(element("span", "ended", " (left)"));
  if (!leave) return row;
  const cross = button("×", () => leave(name));
  cross.setAttribute("aria-label", `Leave #${name}`);
  row.append(cross);
  return row;
}

/** Somebody who is there, with a coloured initial; `count` sockets may have the same name. */
export function personRow(name, count, isMe) {
  const row = element("li");
  const initial = element("span", "initial", [...name][0].toLocaleUpperCase());
  initial.setAttribute("aria-hidden", "true");
  initial.style.setProperty("--hue", hueOf(name));
  row.append(initial, element("bdi", "", name));
  if (count > 1) row.append(element("span", "faint", ` × ${count}`));
  if (isMe) row.append(element("span", "faint", " (you)"));
  return row;
}

/** A message of the room, or a note about it; `previous` is what is above it, if anything. */
export function itemRow(item, previous) {
  if (item.note !== undefined) return element("li", "note", item.note);
  const row = element("li", item.own ? "message own" : "message");
  const author = element("bdi", "name", item.name);
  author.style.setProperty("--hue", hueOf(item.name));
  const head = element("p", "head");
  head.append(author, timeOf(item));
  if (item.type) head.append(element("span", "type", item.type));
  if (item.own) head.append(element("span", "state", "✓ sent"));
  row.classList.toggle("continues", continues(item, previous));
  row.append(head, textOf(item));
  return row;
}

/** Something written here that has not come back yet. */
export function pendingRow(item, isConnected, retry, discard) {
  const row = element("li", `message own ${item.state}`);
  const sending = isConnected ? "sending…" : "waiting for the connection";
  const note = element("p", "state", { pending: sending, stored: "✓ sent", failed: item.note }[item.state]);
  row.append(textOf(item), note);
  if (item.state !== "failed") return row;
  if (item.retryable) note.append(button("Retry", () => retry(item)));
  note.append(button("Discard", () => discard(item)));
  return row;
}

/** Whether a message stands under the name of the one above it. */
export function continues(item, previous) {
  if (!previous || previous.note !== undefined || item.note !== undefined) return false;
  const { name, own, time } = previous;
  return name === item.name && own === item.own && Date.parse(item.time) - Date.parse(time) < TOGETHER_MS;
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
