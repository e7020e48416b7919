// Types of client.js.

/** Any JSON. */
export type Json = null | boolean | number | string | Json[] | { [key: string]: Json };

/** The position before a room's first message. */
export declare const BEGINNING: "0-0";

export interface ChatOptions {
  /** Address of the service, such as `https://chat.example`. Not needed where this file is loaded from the service itself. */
  url?: string | URL;
  /**
   * A JWT, or a function that gets one: asked before connecting, before it expires, and when the server does not take the last one.
   * If it fails, or what it gets is no token, that is told as an `error`, and it is asked again later.
   */
  token?: string | ((why: TokenReason) => string | undefined | Promise<string | undefined>);
  /** Most messages that wait to be stored, over all rooms: 1000. More are rejected with `queue_full`. */
  queue?: number;
  /** Closes the chat. */
  signal?: AbortSignal;
  /** Where there is none (Node 20), or another one is wanted. */
  WebSocket?: new (url: string, protocols: string[]) => any;
  /** Another one than the global. */
  fetch?: typeof fetch;
}

/** Why a token is asked for: the last one ends soon (`renew`), or the server did not take it, or asks for one (`rejected`). */
export interface TokenReason {
  reason: "connect" | "renew" | "rejected";
  /** What the server said of the last one, for people; empty if nothing. */
  message: string;
}

export interface RoomOptions {
  /** Id of the last message that you have: all that followed comes first. `BEGINNING`: all that there is. Without: what comes from now on. */
  after?: string;
  /** Leaves the room. */
  signal?: AbortSignal;
}

/** A message, as everyone in the room gets it. */
export interface Message<Payload = any> {
  type: string;
  /** Its position in the room's log: opaque, compared for equality only. Absent for ephemeral messages. */
  id?: string;
  room: string;
  /** The sender's user id; absent if anonymous. */
  from?: string;
  /** The sender's socket. */
  client_id: string;
  /** The log's clock: UTC. */
  timestamp: string;
  n?: number;
  payload: Payload;
  /** Sent by this chat. */
  own: boolean;
}

/** A user, or an anonymous socket. */
export type Occupant = { from: string; client_id?: undefined } | { client_id: string; from?: undefined };

export interface Presence {
  count: number;
  /** Everybody; undefined where they are too many to tell. */
  here: Occupant[] | undefined;
}

export interface Receipt {
  /** The sender's count in this room. */
  n: number;
  /** Where the message stands; absent where only that it was stored is still known. */
  id?: string;
}

export interface History {
  /** Oldest first. */
  messages: Message[];
  /** Whether they touch the position asked for. */
  recovered: boolean;
  rollback?: string;
  /** The log's last position. */
  top: string;
}

export type State =
  | { name: "connecting" }
  | { name: "open"; clientId: string; from?: string; node: string }
  /** `failures`: sockets in a row that the server did not accept. */
  | { name: "waiting"; waitMs: number; failures: number }
  /** With an error, unless `close()` was called. */
  | { name: "closed"; error?: ChatError };

/** What went wrong; `code` is one of the server's error codes, or one of the client's own. */
export declare class ChatError extends Error {
  code:
    | "closed" | "left" | "queue_full" | "too_large" | "too_old" | "token" | "request" | "reset" | "rollback" | "callback"
    | "invalid_json" | "invalid_message" | "reserved_type" | "invalid_room" | "not_subscribed" | "forbidden" | "too_many_rooms"
    | "rate_limited" | "unavailable" | "gap" | (string & {});
  retryable?: boolean;
  /** Of a message: "unknown" if it may have been stored all the same. */
  outcome?: "refused" | "unknown";
  room?: string;
  /** Of a closed chat: the close code. */
  closeCode?: number;
  /** Of a request: the HTTP status. */
  status?: number;
  cause?: unknown;
}

interface ChatEvents {
  state: State;
  /** What belongs to no call. Without a listener, it is printed. */
  error: ChatError;
  /** Every frame, for developers; tokens are left out. */
  frame: { way: "in" | "out"; frame: { type?: string; [key: string]: Json | undefined }; at: number };
}

interface RoomEvents {
  /** The next message. The room's position moves on when all listeners have returned, and what they returned has settled. */
  message: Message;
  /** For the first time, without a position: live begins after `id`. The past is `history({ through: id })`. */
  joined: { id: string };
  /** What follows continues exactly after that position: what was missed, up to `id`, and then live. */
  recovered: { after: string; id: string };
  /** The log does not reach back to where you were: live begins after `id`. Start over from `history({ through: id })`. */
  reset: { id: string };
  /** The log has lost what came after `to`: drop it; what follows continues from there, up to `id`, and then live. */
  rollback: { to: string; id: string };
  /** Messages that are not stored, but for typing. */
  ephemeral: Message;
  /** Who is typing at the moment. */
  typing: { from?: string; client_id: string; payload: any }[];
  presence: Presence & { joined: Occupant[]; left: Occupant[] };
  /** No more comes; with an error, unless `leave()` or `close()` was called. */
  left: { error?: ChatError };
}

declare class Emitter<Events> {
  /** Calls the listener at each event, until the returned function is called or the signal aborts. */
  on<Name extends keyof Events>(event: Name, listener: (value: Events[Name]) => unknown, options?: { signal?: AbortSignal }): () => void;
}

/** One connection to the service, and the rooms that are followed over it. It connects by itself, and comes back by itself. */
export declare class Chat extends Emitter<ChatEvents> {
  constructor(options?: ChatOptions);
  readonly state: State;
  /** What the server asks to keep to; known once there was a connection. */
  readonly limits: { message_bytes: number; rooms: number } | undefined;
  /** The room of this name, joined; the same object each time, until it is left. Listen before the next `await`. */
  room(name: string, options?: RoomOptions): Room;
  /** Tries again now, rather than after the wait. */
  reconnect(): void;
  /** Leaves for good. What has not been stored is rejected with `closed`. */
  close(): void;
}

/** One room; made by `chat.room()`. */
export declare class Room extends Emitter<RoomEvents> {
  private constructor();
  readonly name: string;
  /** Whether it is in the room at this moment. */
  readonly joined: boolean;
  /** Id of the last message that the listeners are done with. */
  readonly position: string | undefined;
  readonly presence: Presence;
  /** Settles when the room's log has the message, or will not have it. In order, and stored once. `type` matches `^[a-z][a-z0-9_.-]{0,63}$`. */
  send(payload: Json, options?: { type?: string; signal?: AbortSignal }): Promise<Receipt>;
  /** Tells whoever is there now; not stored, not sent later. Whether it was sent. Throws what never can be: `too_large`, `invalid_message`. */
  signal(type: string, payload?: Json): boolean;
  /** Says that the user is typing; call it at each key. Throws what is `too_large`. */
  typing(payload?: Json): void;
  /** A part of the log: the newest messages, or those before, through or after an id. */
  history(part?: { before?: string; through?: string; after?: string; limit?: number; signal?: AbortSignal }): Promise<History>;
  /** No more comes from this room. What has not been stored is rejected with `left`. */
  leave(): void;
  /** The messages, one after the other. A `reset` or `rollback` that nobody listens for ends the loop with that error. */
  [Symbol.asyncIterator](): AsyncIterableIterator<Message>;
}
