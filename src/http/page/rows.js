// Builds the rows of the page's three lists. What others wrote only ever becomes text nodes, never markup.

/** Messages of one author within this time stand under one name. */
const TOGETHER_MS = 5 * 60_000;

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

/** A room to go to, which can be forgotten unless it is the present one. */
export function roomRow(room, isPresent, forget) {
  const row = element("li");
  const link = element("a", "", `#${room}`);
  link.href = `#${room}`;
  row.append(link);
  if (isPresent) {
    link.setAttribute("aria-current", "page");
    return row;
  }
  const cross = button("×", () => forget(room));
  cross.setAttribute("aria-label", `Forget #${room}`);
  row.append(cross);
  return row;
}

/** A message of the room; `previous` is the one above it, or null. */
export function messageRow(message, previous) {
  const row = element("li", message.own ? "message own" : "message");
  const author = element("bdi", "name", message.name);
  author.style.setProperty("--hue", hueOf(message.name));
  const head = element("p", "head");
  head.append(author, timeOf(message));
  if (message.type) head.append(element("span", "type", message.type));
  if (message.own) head.append(element("span", "state", "✓ sent"));
  row.classList.toggle("continues", continues(message, previous));
  row.append(head, textOf(message));
  return row;
}

/** Something written here that has not come back yet. */
export function outboxRow(item, retry, discard) {
  const row = element("li", `message own ${item.state}`);
  const note = element("p", "state", item.note);
  row.append(textOf(item), note);
  if (item.state !== "failed") return row;
  if (item.retryable) note.append(button("Retry", () => retry(item)));
  note.append(button("Discard", () => discard(item)));
  return row;
}

function continues(message, previous) {
  const { name, own, time } = previous ?? {};
  return name === message.name && own === message.own && Date.parse(message.time) - Date.parse(time) < TOGETHER_MS;
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
