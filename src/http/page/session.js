// The chat with the server and the conversations that are followed over it. A chat that has ended, or that is to have another token, is
// followed by another one, which goes on where the last one was. Knows nothing of the DOM.

import { Chat } from "../api/chat-api/client.js";
import { Conversation } from "./conversation.js";
import { rememberClient } from "./store.js";

export class Session {
  name;
  /** The user id, where the server asks for a token. */
  me = undefined;
  /** The last time without a connection: how long it was, and its number. */
  absence = { number: 0, ms: 0 };
  #chat = null;
  #conversations = new Map();
  #told;
  #lostAt = 0;
  #openBefore = false;

  /**
   * `told` has `token(why)`, which gets a token; and `state`, `error`, `frame`, `conversation` and `anotherUser`, which are called
   * with what has happened.
   */
  constructor(name, told) {
    this.name = name;
    this.#told = told;
  }

  get state() {
    return this.#chat?.state ?? { name: "connecting" };
  }

  get conversations() {
    return [...this.#conversations.values()];
  }

  conversation(name) {
    return this.#conversations.get(name);
  }

  /** Connects, or does so anew. */
  start() {
    this.#leave();
    const chat = new Chat({ token: this.#told.token });
    this.#chat = chat;
    chat.on("state", (state) => chat === this.#chat && this.#changed(state));
    chat.on("error", (error) => this.#told.error(error));
    chat.on("frame", (frame) => this.#told.frame(frame));
    for (const conversation of this.#conversations.values()) this.#follow(conversation);
  }

  /** Tries again now. */
  reconnect() {
    if (this.state.name === "closed") this.start();
    else this.#chat?.reconnect();
  }

  /** Joins the room, or joins it again if it was taken away. */
  join(name) {
    let conversation = this.#conversations.get(name);
    if (!conversation) {
      conversation = new Conversation(name, this, this.#told.conversation);
      this.#conversations.set(name, conversation);
      this.#follow(conversation);
    } else if (conversation.ended) this.#follow(conversation);
    return conversation;
  }

  leave(name) {
    this.#conversations.get(name)?.leave();
    this.#conversations.delete(name);
  }

  /** What the others call this user from now on. */
  rename(name) {
    this.name = name;
    for (const conversation of this.#conversations.values()) conversation.introduce();
  }

  #follow(conversation) {
    if (this.#chat && this.state.name !== "closed") conversation.follow(this.#chat.room(conversation.name, { after: conversation.position }));
  }

  #changed(state) {
    if (state.name === "open") {
      if (this.#openBefore && this.me !== state.from) return this.#told.anotherUser();
      rememberClient(state.clientId);
      this.me = state.from;
      this.#openBefore = true;
      if (this.#lostAt) this.absence = { number: this.absence.number + 1, ms: Date.now() - this.#lostAt };
      this.#lostAt = 0;
    } else if (this.#openBefore) this.#lostAt ||= Date.now();
    this.#told.state(state);
  }

  #leave() {
    const chat = this.#chat;
    this.#chat = null;
    if (this.#openBefore) this.#lostAt ||= Date.now();
    chat?.close();
  }
}
