// The panel beside the conversation: the rooms with what is unread in them, and who is in the present one.

import { LOBBY } from "./conversation.js";
import { namesOf } from "./people.js";
import { personRow, roomRow } from "./rows.js";

/** Names that are listed; the number says how many there are. */
const NAMES = 100;

const $ = (id) => document.getElementById(id);
/** Finds a link or a button of the list in the next list. */
const keyOf = (node) => node.getAttribute("href") ?? node.getAttribute("aria-label");

export function showRooms(conversations, present, leave) {
  const rows = conversations.map((conversation) =>
    roomRow(conversation, conversation === present, conversation.name === LOBBY ? undefined : leave),
  );
  const focused = $("rooms").contains(document.activeElement) ? keyOf(document.activeElement) : null;
  $("rooms").replaceChildren(...rows);
  if (focused) [...$("rooms").querySelectorAll("a, button")].find((node) => keyOf(node) === focused)?.focus();
  const elsewhere = conversations.reduce((sum, { unread }) => sum + unread, 0) - (present?.unread ?? 0);
  $("menu-unread").textContent = elsewhere > 0 ? ` (${elsewhere > 99 ? "99+" : elsewhere})` : "";
  const { unread = 0, name } = present ?? {};
  if (name) document.title = unread + elsewhere > 0 ? `(${unread + elsewhere}) #${name}` : `#${name}`;
}

export function showPeople(conversation, myName) {
  const { count, here } = conversation?.presence ?? { count: 0 };
  $("present").hidden = $("people").hidden = count === 0;
  $("present").textContent = $("people-title").textContent = `${count} here`;
  const names = namesOf(here ?? []);
  $("people-list").replaceChildren(...names.slice(0, NAMES).map(([name, times]) => personRow(name, times, name === myName)));
  const more = here ? names.length - NAMES : count;
  $("people-more").textContent = !here ? "They are too many to list." : more > 0 ? `and ${more} more` : "";
}

export function setOpen(open) {
  $("panel").classList.toggle("open", open);
  $("menu").setAttribute("aria-expanded", String(open));
}

$("menu").addEventListener("click", () => setOpen(!$("panel").classList.contains("open")));
