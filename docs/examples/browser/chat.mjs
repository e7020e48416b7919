// The page's module: one room, with its past, who is there, who is typing, and what is sent.

import { Chat } from "http://localhost:8080/api/chat-api/client.js";

const $ = (id) => document.getElementById(id);
const user = new URLSearchParams(location.search).get("user") ?? "guest";

/** Asked for whenever a new token is needed. The backend knows its users; here it believes what the page says. */
async function token() {
  const response = await fetch(`/token?user=${encodeURIComponent(user)}`);
  if (!response.ok) throw new Error(`no token: HTTP ${response.status}`); // it is asked again, more and more slowly
  return response.text();
}

const chat = new Chat({ url: "http://localhost:8080", token });
const room = chat.room("team.red");

chat.on("state", ({ name, error }) => ($("state").textContent = error ? `${name}: ${error.message}` : name));

// A new room of this page: the past up to where live begins. After `reset` it is the same: what is shown does not continue.
room.on("joined", ({ id }) => showPast(id));
room.on("reset", ({ id }) => showPast(id));
// The server has lost what came after this message.
room.on("rollback", ({ to }) => {
  while ($("messages").lastChild && $("messages").lastChild.dataset.id !== to) $("messages").lastChild.remove();
});
room.on("message", show);
room.on("presence", ({ here, count }) => ($("present").textContent = `Here: ${here?.map(({ from }) => from).join(", ") ?? count}`));
room.on("typing", (typists) => ($("typing").textContent = typists.map(({ from }) => `${from} is typing`).join(", ")));

$("text").addEventListener("input", () => room.typing());
$("composer").addEventListener("submit", async (event) => {
  event.preventDefault();
  const text = $("text").value;
  $("text").value = "";
  try {
    await room.send({ text }); // stored, once, even if the connection breaks meanwhile
  } catch (error) {
    $("state").textContent = `not sent: ${error.message}`;
    $("text").value = text;
  }
});

async function showPast(id) {
  $("messages").replaceChildren();
  (await room.history({ through: id, limit: 50 })).messages.forEach(show);
}

function show({ id, from, payload }) {
  const row = document.createElement("li");
  row.dataset.id = id;
  row.textContent = `${from}: ${payload?.text ?? JSON.stringify(payload)}`; // text, never markup
  $("messages").append(row);
}
