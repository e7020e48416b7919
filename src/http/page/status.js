// Shows the state of the connection, and the strips above the messages: notices and announcements.

import { awaited } from "./token.js";

const $ = (id) => document.getElementById(id);
const [status, countdown, reconnect, enterToken] = ["status", "countdown", "reconnect", "enter-token"].map($);

let ticking = 0;

/** Shows where the connection stands. */
export function showState(state) {
  clearInterval(ticking);
  countdown.textContent = "";
  const name = navigator.onLine || state.name === "open" ? state.name : "offline";
  // "connecting" within a series of tries is not worth a flicker, or a word from a screen reader.
  const series = name === "connecting" && ["waiting", "offline"].includes(status.dataset.state);
  if (name === "connecting" && awaited() === "rejected") say("token");
  else if (!series) say(name);
  reconnect.hidden = !["waiting", "closed", "offline"].includes(name);
  reconnect.textContent = name === "closed" ? "Connect again" : "Reconnect now";
  enterToken.hidden = !awaited() && state.error?.code !== "token";
  if (state.name === "waiting" && name !== "offline") countDown(Date.now() + state.waitMs);
  if (state.name === "open") $("notice").hidden = true;
  if (awaited() === "renew") notify("Your token ends soon: enter the next one, and the connection stays.");
  if (state.failures >= 2 && name !== "offline") notify("The server did not accept the connection. It may be down, or something is in between.");
  if (state.error) notify(state.error.message);
}

const WORDS = {
  connecting: "connecting…",
  open: "connected",
  waiting: "reconnecting",
  offline: "offline",
  token: "waiting for a token",
  closed: "not connected",
};

function say(name) {
  if (status.dataset.state === name) return;
  status.textContent = WORDS[name];
  status.dataset.state = name;
}

function countDown(until) {
  const show = () => {
    countdown.textContent = `in ${Math.max(0, Math.ceil((until - Date.now()) / 1000))} s…`;
  };
  show();
  ticking = setInterval(show, 1000);
}

export function notify(text) {
  showStrip("notice", text);
}

export function announce({ name, text }) {
  showStrip("announcement", `${name} to everyone: ${text}`);
}

function showStrip(id, text) {
  const words = $(id).querySelector("p");
  if ($(id).hidden || words.textContent !== text) words.textContent = text; // else it would be read out again
  $(id).hidden = false;
}

export function hideStrips() {
  $("notice").hidden = true;
}

for (const id of ["notice", "announcement"]) {
  $(id).querySelector("button").addEventListener("click", () => ($(id).hidden = true));
}
