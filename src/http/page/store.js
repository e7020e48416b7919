// What the page remembers: names and rooms (localStorage), and for each room of this tab its position and its last
// messages (sessionStorage). Knows nothing of sockets or of the DOM.

/** Messages kept, and shown, per room. */
export const KEPT = 500;
const ROOMS_KEPT = 20;
const SAVE_DELAY_MS = 1_000;
const KEY = /^[0-9a-f]{32}$/;
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
    return true;
  } catch {
    return false;
  }
}

/** Small choices of the user, by name. */
export const settings = {
  name: () => asText(read("localStorage", "chat.name")) || `guest-${randomKey().slice(0, 4)}`,
  setName: (name) => write("localStorage", "chat.name", name),
  token: () => asText(read("sessionStorage", "chat.token")),
  setToken: (token) => write("sessionStorage", "chat.token", token),
  rooms: () => [read("localStorage", "chat.rooms")].flat().filter((room) => isRoomName(asText(room))),
  setRooms: (rooms) => write("localStorage", "chat.rooms", rooms.slice(-ROOMS_KEPT)),
};

const asText = (value) => (typeof value === "string" ? value : "");

/**
 * One room as this tab knows it. `position` is the id of the last message received, the place to resume from;
 * `outbox` holds what was written here and has not come back yet.
 */
export class Room {
  #seen = new Set();
  #saving = 0;

  constructor(name) {
    this.name = name;
    const saved = read("sessionStorage", `chat.room.${name}`) ?? {};
    this.position = asText(saved.position);
    this.messages = Array.isArray(saved.messages) ? saved.messages : [];
    this.outbox = Array.isArray(saved.outbox) ? saved.outbox : [];
    for (const message of this.messages) marks(message).forEach((mark) => this.#seen.add(mark));
  }

  /**
   * Takes a received message: moves the position and returns what to show, or null for one that is here already:
   * the same id (the server started the room over), or the same key (a second try of a send whose first had arrived).
   */
  receive(frame) {
    this.position = frame.id;
    this.save();
    const message = readable(frame);
    const sent = this.outbox.findIndex(({ key }) => key === message.key);
    if (sent >= 0) {
      this.outbox.splice(sent, 1);
      message.own = true;
    }
    if (marks(message).some((mark) => this.#seen.has(mark))) return null;
    marks(message).forEach((mark) => this.#seen.add(mark));
    this.messages.push(message);
    if (this.messages.length > KEPT) marks(this.messages.shift()).forEach((mark) => this.#seen.delete(mark));
    return message;
  }

  /** Saves soon: a replay of a thousand messages is written once, not a thousand times. */
  save() {
    this.#saving ||= setTimeout(() => this.saveNow(), SAVE_DELAY_MS);
  }

  /** Position and messages go in one item, so that a reload finds them in step or not at all. */
  saveNow() {
    clearTimeout(this.#saving);
    this.#saving = 0;
    const { position, outbox } = this;
    const key = `chat.room.${this.name}`;
    // Long messages can fill the storage before there are 500: keep the newer half, then half of that.
    for (let kept = this.messages.length; ; kept = Math.floor(kept / 2)) {
      const messages = kept ? this.messages.slice(-kept) : [];
      if (write("sessionStorage", key, { position, messages, outbox })) return;
      if (!kept) break;
    }
    try {
      sessionStorage.removeItem(key); // else a reload would find an old state and resume from it
    } catch {
      // Storage is off: there is no old state.
    }
  }
}

// The two kinds of mark must not meet: a sender chooses its key, and could name the id of another's message.
const marks = ({ id, key }) => (key ? [`id ${id}`, `key ${key}`] : [`id ${id}`]);

/** What a message says to a reader. Any client may send any JSON, so nothing is taken for granted. */
export function readable({ type, id, from, timestamp, payload }) {
  const fields = payload !== null && typeof payload === "object" ? payload : {};
  const text = typeof payload === "string" ? payload : fields.text;
  return {
    id,
    name: from || asText(fields.name).trim().slice(0, 80) || "anonymous",
    text: typeof text === "string" ? text : JSON.stringify(payload),
    time: asText(timestamp),
    ...(type !== "chat" && { type }),
    ...(KEY.test(fields.key) && { key: fields.key }),
  };
}
