// What happened, for developers: the last frames that were sent and received, and the states of the connection.

import { element } from "./rows.js";

/** Frames kept, and shown. */
const KEPT = 200;
const LONGEST_LINE = 400;

const $ = (id) => document.getElementById(id);
const [drawer, list, toggle, pause] = ["frames", "frame-list", "what-happened", "pause"].map($);

const kept = [];
let paused = false;

/** Writes down `{at, way: "in" | "out", frame}`, or a state of the connection as `{at, way: "state", frame}`. */
export function record(entry) {
  if (paused) return;
  kept.push(entry);
  if (kept.length > KEPT) kept.shift();
  if (drawer.hidden) return;
  const atTheEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  list.append(frameRow(entry));
  if (list.childElementCount > KEPT) list.firstElementChild.remove();
  if (atTheEnd) toTheEnd();
}

let scheduled = 0;

function toTheEnd() {
  scheduled ||= requestAnimationFrame(() => {
    scheduled = 0;
    list.scrollTop = list.scrollHeight;
  });
}

const WAYS = { in: ["←", "received"], out: ["→", "sent"], state: ["●", "connection"] };

/** The frame is laid out when it is opened. */
function frameRow({ at, way, frame }) {
  const row = element("li");
  const details = element("details", `frame-${way}`);
  const summary = element("summary");
  const [sign, word] = WAYS[way];
  const arrow = element("span", "way", sign);
  arrow.setAttribute("aria-hidden", "true");
  const { type, ...rest } = frame;
  const json = JSON.stringify(rest);
  summary.append(element("time", "", timeOf(at)), arrow, element("span", "unseen", ` ${word} `), element("b", "", type ?? frame.name ?? "chat"));
  summary.append(element("code", "", json.slice(0, LONGEST_LINE)));
  details.append(summary);
  details.addEventListener("toggle", () => {
    details.querySelector("pre")?.remove();
    if (!details.open) return;
    const text = element("pre", "", JSON.stringify(frame, null, 2));
    text.tabIndex = 0; // it may have to be scrolled
    text.setAttribute("aria-label", "Frame as JSON");
    text.setAttribute("role", "region");
    details.append(text);
    details.scrollIntoView({ block: "nearest" });
  });
  row.append(details);
  return row;
}

function timeOf(at) {
  const time = new Date(at);
  return `${time.toLocaleTimeString([], { hour12: false })}.${String(time.getMilliseconds()).padStart(3, "0")}`;
}

function open(isOpen) {
  drawer.hidden = !isOpen;
  toggle.setAttribute("aria-expanded", String(isOpen));
  list.replaceChildren(...(isOpen ? kept.map(frameRow) : []));
  if (isOpen) toTheEnd();
}

toggle.addEventListener("click", () => open(drawer.hidden));
pause.addEventListener("click", () => {
  paused = !paused;
  pause.setAttribute("aria-pressed", String(paused));
});
$("clear").addEventListener("click", () => {
  kept.length = 0;
  list.replaceChildren();
});
$("close-frames").addEventListener("click", () => {
  open(false);
  toggle.focus();
});
drawer.addEventListener("keydown", (event) => event.key === "Escape" && $("close-frames").click());
