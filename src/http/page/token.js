// Gets a token from whoever sits in front of the page: when the server asks for one, does not take the last one, or takes it not much longer.

import { settings } from "./store.js";

const SHAPE = /^[A-Za-z0-9_.-]*$/;
const TITLES = {
  rejected: "This server asks for a token",
  renew: "Your token ends soon",
  connect: "Access token",
};

const $ = (id) => document.getElementById(id);
const [dialog, field, fault] = ["token-dialog", "token", "token-fault"].map($);

/** Who waits for a token, and why. */
let asked = null;
let accept = () => {};

/** The token of this tab; asked for where there is none that the server takes. */
export function token({ reason, message }) {
  if (reason === "connect") return settings.token();
  if (!asked) {
    let resolve;
    asked = { promise: new Promise((done) => (resolve = done)), reason, message };
    asked.resolve = resolve;
  }
  Object.assign(asked, { reason, message });
  if (reason === "rejected") open(asked); // else there is time: nobody's typing is interrupted
  return asked.promise;
}

/** Why a token is waited for; "" if none is. */
export const awaited = () => asked?.reason ?? "";

/** Nobody waits any more: the next chat asks anew. */
export function forget() {
  asked = null;
}

/** Opens the dialog; `accepted` is called with a token that nobody waits for. */
export function ask(accepted) {
  accept = accepted;
  open(asked ?? { reason: "connect", message: "" });
}

function open({ reason, message }) {
  $("token-title").textContent = TITLES[reason];
  $("token-answer").hidden = !message;
  $("token-answer").textContent = message ? `It says: ${message}` : "";
  fault.textContent = "";
  field.value = reason === "connect" ? settings.token() : "";
  if (!dialog.open) dialog.showModal();
  field.focus();
}

$("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const wanted = field.value.trim();
  if (!SHAPE.test(wanted)) {
    fault.textContent = "That is not a token: it has only letters, digits and _ . -";
    return;
  }
  if (!wanted && asked) {
    fault.textContent = "Enter a token, or choose “Not now”.";
    return;
  }
  settings.setToken(wanted);
  dialog.close();
  const waiting = asked;
  asked = null;
  if (waiting) waiting.resolve(wanted);
  else accept();
});
$("token-cancel").addEventListener("click", () => dialog.close());
