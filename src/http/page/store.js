// What the page remembers. For this browser: the user's name and rooms. For this tab: the token, the sockets it had, and what
// was written and is not stored yet. Knows nothing of sockets or of the DOM.

const ROOMS_KEPT = 50;
const CLIENTS_KEPT = 50;
const ROOM_NAME = /^[A-Za-z0-9_.-]{1,128}$/;

export const isRoomName = (name) => ROOM_NAME.test(name) && name !== "." && name !== "..";

/** A random key that tells one sent message from all others. (`crypto.randomUUID` exists on HTTPS pages only.) */
export function randomKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// Storage can be switched off, full, or hold what another version wrote: the page then works without it.
function read(area, key) {
  try {
    return JSON.parse(globalThis[area].getItem(key));
  } catch {
    return null;
  }
}

function write(area, key, value) {
  try {
    globalThis[area].setItem(key, JSON.stringify(value));
  } catch {
    // It is not remembered.
  }
}

export const asText = (value) => (typeof value === "string" ? value : "");
const texts = (value) => (Array.isArray(value) ? value.filter((item) => typeof item === "string") : []);

export const settings = {
  name: () => asText(read("localStorage", "chat.name")) || `guest-${randomKey().slice(0, 4)}`,
  setName: (name) => write("localStorage", "chat.name", name),
  token: () => asText(read("sessionStorage", "chat.token")),
  setToken: (token) => write("sessionStorage", "chat.token", token),
  rooms: () => texts(read("localStorage", "chat.rooms")).filter(isRoomName),
  setRooms: (rooms) => write("localStorage", "chat.rooms", rooms.slice(-ROOMS_KEPT)),
};

/** The sockets that this tab had: what they sent is its own, after a reload too. */
const clients = new Set(texts(read("sessionStorage", "chat.clients")));

export function rememberClient(id) {
  clients.delete(id);
  clients.add(id);
  write("sessionStorage", "chat.clients", [...clients].slice(-CLIENTS_KEPT));
}

export const isOwnClient = (id) => clients.has(id);

/** Nothing of one user is shown to the next. */
export function forgetUser() {
  clients.clear();
  write("sessionStorage", "chat.clients", []);
  write("sessionStorage", "chat.drafts", {});
}

/** What was written in a room and is not known to be stored, as `{key, name, text}`. */
export const drafts = {
  of: (room) => drafts.all()[room]?.filter(({ key, name, text } = {}) => [key, name, text].every((field) => typeof field === "string")) ?? [],
  all: () => {
    const saved = read("sessionStorage", "chat.drafts");
    return saved !== null && typeof saved === "object" ? Object.fromEntries(Object.entries(saved).filter(([, list]) => Array.isArray(list))) : {};
  },
  save: (room, items) => {
    const { [room]: _, ...others } = drafts.all();
    write("sessionStorage", "chat.drafts", items.length > 0 ? { ...others, [room]: items.map(({ key, name, text }) => ({ key, name, text })) } : others);
  },
};
