// The socket to one room: opens it, notices its loss, comes back and resumes. What frames mean is the caller's.

const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 30_000;
const LONGEST_HINT_MS = 300_000;
/** Open for this long, a socket counts as a success and the backoff starts anew. */
const STABLE_MS = 5_000;
/** Silence after which the server is asked for a sign of life: browsers do not show the server's own pings. */
const QUIET_MS = 25_000;
/** The position before the first message: the server replays all that the room's log holds. */
const BEGINNING = "0-0";
/** Closes after which the same room and token would fail in the same way. All others are worth another try. */
const FINAL = new Set([1002, 1003, 1007, 1008, 1009, 4400, 4401, 4403, 4429]);

/**
 * Calls `onFrame(frame)` for each frame received and `onState(state)` with one of
 * `{name: "connecting"}`, `{name: "open"}`, `{name: "waiting", waitMs, failures}` and `{name: "stopped", code, reason}`.
 * `position()` is asked for the id to resume after each time a socket is opened.
 */
export class Connection {
  #options;
  #socket = null;
  #retry = 0;
  #heartbeat = 0;
  #heard = true;
  #openedAt = 0;
  #tries = 0;
  /** Sockets in a row that the server did not accept. */
  #failures = 0;
  #onOnline = () => this.reconnect();
  #onOffline = () => this.#socket && this.#lost({ code: 1006, reason: "" });

  constructor(options) {
    this.#options = options;
    addEventListener("online", this.#onOnline);
    addEventListener("offline", this.#onOffline);
    this.#open();
  }

  /** Whether the frame was handed to an open socket; an answer may still fail to come. */
  send(frame) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return false;
    this.#socket.send(JSON.stringify(frame));
    return true;
  }

  /** Tries again now rather than after the wait. */
  reconnect() {
    if (!this.#socket) this.#open();
  }

  /** Leaves for good; no more calls are made. */
  close() {
    removeEventListener("online", this.#onOnline);
    removeEventListener("offline", this.#onOffline);
    this.#drop();
  }

  #open() {
    clearTimeout(this.#retry);
    this.#openedAt = 0;
    this.#options.onState({ name: "connecting" });
    const { token } = this.#options;
    const socket = token ? new WebSocket(this.#url(), ["chat.plain", `bearer.${token}`]) : new WebSocket(this.#url());
    this.#socket = socket;
    // A socket that was given up may still report; only the present one is listened to.
    const listen = (event, handler) => socket.addEventListener(event, (e) => this.#socket === socket && handler(e));
    listen("open", () => this.#opened());
    listen("message", ({ data }) => this.#received(data));
    listen("close", (event) => this.#lost(event));
  }

  #url() {
    const { room, position } = this.#options;
    const url = new URL(`api/chat-api/ws/${encodeURIComponent(room)}`, document.baseURI);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    // A position that the server will not take must not lock the room: each fourth try asks for everything.
    const startOver = this.#failures % 4 === 3;
    url.searchParams.set("after", (!startOver && position()) || BEGINNING);
    return url;
  }

  #opened() {
    this.#openedAt = Date.now();
    this.#failures = 0;
    this.#heard = true;
    this.#heartbeat = setInterval(() => this.#checkLife(), QUIET_MS);
    this.#options.onState({ name: "open" });
  }

  #received(data) {
    this.#heard = true;
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      return; // not of this protocol
    }
    if (frame !== null && typeof frame === "object") this.#options.onFrame(frame);
  }

  #checkLife() {
    if (!this.#heard) return this.#lost({ code: 1006, reason: "" });
    this.#heard = false;
    this.send({ type: "ping" });
  }

  #lost({ code, reason }) {
    if (!this.#openedAt) this.#failures += navigator.onLine ? 1 : 0;
    else if (Date.now() - this.#openedAt > STABLE_MS) this.#tries = 0;
    this.#drop();
    if (FINAL.has(code)) return this.#options.onState({ name: "stopped", code, reason });
    const waitMs = this.#wait(code, reason);
    this.#retry = setTimeout(() => this.#open(), waitMs);
    this.#options.onState({ name: "waiting", waitMs, failures: this.#failures });
  }

  /** The server's own hint when it drains; else exponential backoff with full jitter, so that a crowd spreads out. */
  #wait(code, reason) {
    const hint = code === 1012 && /reconnect after (\d+) ms/.exec(reason);
    if (hint) return Math.min(Number(hint[1]), LONGEST_HINT_MS);
    return Math.random() * Math.min(LONGEST_WAIT_MS, FIRST_WAIT_MS * 2 ** this.#tries++);
  }

  #drop() {
    clearTimeout(this.#retry);
    clearInterval(this.#heartbeat);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }
}
