// Who says something, what they are called, and what is said. Any client may send any JSON, so nothing is taken for granted.
// Knows nothing of sockets or of the DOM.

import { asText, isOwnClient } from "./store.js";

const KEY = /^[0-9a-f]{32}$/;
const LONGEST_NAME = 80;
/** Names of anonymous sockets that are remembered. */
const NAMES_KEPT = 1_000;

/** What the sockets without a user id call themselves, by `client_id`. */
const names = new Map();

function nameIn(payload) {
  return asText(payload?.name).trim().slice(0, LONGEST_NAME);
}

/** Takes a message, or a sign of life, for who its sender is. Whether that is news. */
export function introduce({ from, client_id: id, payload }) {
  const name = nameIn(payload);
  if (from || !name || names.get(id) === name) return false;
  names.set(id, name);
  if (names.size > NAMES_KEPT) names.delete(names.keys().next().value);
  return true;
}

/** What somebody is called: an occupant, a typist or the sender of a message. */
export function nameOf({ from, client_id: id, payload }) {
  return from || nameIn(payload) || names.get(id) || `guest ${asText(id).slice(-4)}`;
}

/** Everybody once, as `[name, how often]`, in the order of the alphabet. */
export function namesOf(occupants) {
  const counts = new Map();
  for (const occupant of occupants) counts.set(nameOf(occupant), (counts.get(nameOf(occupant)) ?? 0) + 1);
  return [...counts].sort(([a], [b]) => a.localeCompare(b));
}

/** A hue in degrees, the same for a name everywhere. */
export function hueOf(name) {
  let hash = 0x811c9dc5; // FNV-1a, and its bits mixed: similar names should not look alike
  for (const char of name) hash = Math.imul(hash ^ char.codePointAt(0), 0x01000193);
  const mixed = Math.imul(hash ^ (hash >>> 15), 0x9e3779b1) >>> 0;
  return Math.floor((mixed / 2 ** 32) * 360);
}

/** What a message says to a reader; `me` is the user id, if there is one. */
export function readable(message, me) {
  const { type, id, from, client_id: client, timestamp, payload, own } = message;
  const fields = payload !== null && typeof payload === "object" ? payload : {};
  const text = typeof payload === "string" ? payload : fields.text;
  return {
    id,
    name: nameIn(payload) && !from ? nameIn(payload) : from || "anonymous",
    text: typeof text === "string" ? text : JSON.stringify(payload),
    time: asText(timestamp),
    own: own || isOwnClient(client) || (from !== undefined && from === me),
    ...(type !== "chat" && { type }),
    ...(KEY.test(fields.key) && { key: fields.key }),
  };
}
