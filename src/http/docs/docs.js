// The reference as one page, from the two documents that the service has of itself.

import { anchor, element, exampleOf, fieldsOf, json, list, named, paragraphs, prose, typeOf } from "./schemas.js";

const $ = (id) => document.getElementById(id);

/** A piece of the reference with a link of its own; what the filter shows or hides. */
function entry(id, title, ...children) {
  const heading = element("h4", { id: `${id}-title` }, element("a", { href: `#${id}` }, title));
  return element("article", { id, "aria-labelledby": `${id}-title` }, heading, children);
}

const part = (title, ...children) => [element("h5", {}, title), children];
const badge = (text, kind) => element("span", { class: `badge ${kind ?? ""}` }, text);

/* HTTP */

function operation(method, path, { operationId, summary, description, parameters = [], requestBody, responses, security }, schemas) {
  const body = requestBody?.content["application/json"];
  const token = security?.some((scheme) => !Object.keys(scheme).length) ? "A token where the server asks for one." : "Takes a token.";
  return entry(
    anchor("http", operationId),
    [badge(method.toUpperCase(), "method"), " ", element("code", {}, path)],
    element("p", {}, element("strong", {}, prose(summary))),
    paragraphs(description),
    element("p", { class: "faint" }, token),
    parameters.length > 0 && part("Parameters", list(parameters.map(parameter))),
    body && part("Body", element("p", {}, typeOf(body.schema)), json(body.example ?? exampleOf(body.schema, schemas), `Example of the body of ${operationId}`)),
    part("Answers", list(Object.entries(responses).map(([status, answer]) => response(operationId, status, answer, schemas)))),
  );
}

function parameter({ name, in: place, required, schema, description, example }) {
  const shown = example !== undefined && [" Such as ", element("code", {}, String(example)), "."];
  return [[named(name, required), " ", badge(place)], [element("p", { class: "type" }, typeOf(schema)), element("p", {}, prose(description), shown)]];
}

function response(operationId, status, { description, content = {}, headers = {} }, schemas) {
  const [kind, body] = Object.entries(content)[0] ?? [];
  const shown = status < 300 && body && json(body.example ?? exampleOf(body.schema, schemas), `Example of answer ${status} of ${operationId}`);
  const names = Object.entries(headers).map(([name, header]) => element("p", {}, element("code", {}, name), ": ", prose(header.description)));
  return [
    element("code", {}, status),
    [element("p", {}, prose(description)), body && element("p", { class: "type" }, element("code", {}, kind), " ", typeOf(body.schema)), names, shown],
  ];
}

function http({ paths, tags, components: { schemas } }) {
  const operations = Object.entries(paths).flatMap(([path, methods]) => Object.entries(methods).map(([method, one]) => ({ method, path, one })));
  return tags.map(({ name, description }) => ({
    title: name,
    lead: paragraphs(description),
    entries: operations.filter(({ one }) => one.tags.includes(name)).map(({ method, path, one }) => operation(method, path, one, schemas)),
  }));
}

/* Sockets */

function channel(name, { title, address, description, parameters = {}, bindings: { ws } }) {
  return entry(
    anchor("channel", name),
    [title, " ", element("code", {}, address)],
    paragraphs(description),
    part("Parameters", list([
      ...Object.entries(parameters).map(([key, one]) => [[element("code", {}, key), " ", badge("path")], paragraphs(one.description)]),
      ...Object.entries(ws.query.properties).map(([key, one]) => [[named(key), " ", badge("query")], paragraphs(one.description)]),
      ...Object.entries(ws.headers.properties).map(([key, one]) => [[named(key), " ", badge("header")], paragraphs(one.description)]),
    ])),
  );
}

function frame(direction, name, { summary, payload, examples = [], tags = [] }, answers) {
  const sessions = !tags.some((tag) => tag.name === "chat.plain");
  const links = answers?.map((answer, index) => [index > 0 && ", ", element("a", { href: `#${anchor("get", answer)}` }, element("code", {}, answer))]);
  return entry(
    anchor(direction, name),
    [element("code", {}, name), sessions && [" ", badge("sessions only")]],
    paragraphs(summary),
    links && element("p", {}, "Answer: ", links),
    part("Fields", fieldsOf(payload)),
    part("Examples", examples.map((example, index) => json(example.payload, `Example ${index + 1} of ${name}`))),
  );
}

const keyOf = (reference) => reference.$ref.split("/").at(-1);

function sockets(document) {
  const { channels, operations, components, info } = document;
  const messages = (action) => {
    const direct = Object.values(operations).filter((one) => one.action === action).flatMap((one) => one.messages.map(keyOf));
    const answers = action === "send" ? Object.values(operations).flatMap((one) => one.reply?.messages.map(keyOf) ?? []) : [];
    return [...new Set([...direct, ...answers])];
  };
  const answers = (name) => Object.values(operations).find((one) => one.reply && one.messages.some((message) => keyOf(message) === name))?.reply.messages.map(keyOf);
  return [
    {
      title: "Opening",
      lead: paragraphs(info.description),
      entries: [
        ...Object.entries(channels).map(([name, one]) => channel(name, one)),
        entry("subprotocols", "Kinds of sockets", list(document["x-subprotocols"].map((one) => [element("code", {}, one.name), prose(one.description)]))),
        entry("tokens", "Tokens", list(Object.entries(components.securitySchemes).map(([name, one]) => [element("code", {}, name), prose(one.description)]))),
      ],
    },
    { title: "You send", entries: messages("receive").map((name) => frame("send", name, components.messages[name], answers(name))) },
    { title: "You get", entries: messages("send").map((name) => frame("get", name, components.messages[name])) },
    { title: "Codes", entries: [entry("error-codes", "Error codes", errors(document)), entry("close-codes", "Close codes", closes(document))] },
  ];
}

const errors = (document) =>
  list(document["x-error-codes"].map(({ code, retryable, meaning }) => [[element("code", {}, code), retryable && [" ", badge("retryable", "good")]], prose(meaning)]));

const closes = (document) =>
  list(document["x-close-codes"].map(({ code, reconnect, meaning }) => [[element("code", {}, String(code)), reconnect && [" ", badge("come back", "good")]], prose(meaning)]));

/* The page */

function schemas(...documents) {
  const all = new Map(documents.flatMap((document) => Object.entries(document.components.schemas)));
  const entries = [...all].sort(([a], [b]) => a.localeCompare(b)).map(([name, schema]) =>
    entry(anchor("schema", name), element("code", {}, name), paragraphs(schema.description), fieldsOf(schema)));
  return [{ title: "Schemas", entries }];
}

/** Puts groups of entries below a heading, and links to them in the contents. */
function chapter(title, groups) {
  const id = anchor("chapter", title);
  const sections = groups.map((group) => element("section", {}, element("h3", {}, group.title), group.lead, group.entries));
  $("reference").append(element("section", { "aria-labelledby": id }, element("h2", { id }, title), sections));
  for (const { title: name, entries } of groups) {
    const links = entries.map((one) => element("li", {}, element("a", { href: `#${one.id}` }, ...[...one.querySelector("h4 a").cloneNode(true).childNodes])));
    $("contents").append(element("section", {}, element("h2", {}, `${title}: ${name}`), element("ul", {}, links)));
  }
}

/** Shows the entries that have all the words. */
function filter() {
  const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
  const entries = [...document.querySelectorAll("article")];
  for (const one of entries) {
    const text = one.textContent.toLowerCase();
    one.hidden = !words.every((word) => text.includes(word));
    document.querySelector(`nav a[href="#${one.id}"]`).parentElement.hidden = one.hidden;
  }
  for (const section of document.querySelectorAll("main section, nav section")) {
    section.hidden = !section.querySelector("article:not([hidden]), li:not([hidden])");
  }
  const shown = entries.filter((one) => !one.hidden).length;
  $("matches").textContent = words.length ? `${shown} of ${entries.length}` : "";
}

function clear() {
  $("filter").value = "";
  filter();
}

/** To the entry that the address names. */
function go() {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === location.hash) link.setAttribute("aria-current", "true");
    else link.removeAttribute("aria-current");
  }
  if (target?.closest("[hidden]")) clear();
  target?.scrollIntoView();
}

function listen() {
  const narrow = matchMedia("(max-width: 50rem)");
  const fold = () => { $("menu").open = !narrow.matches; };
  narrow.addEventListener("change", fold);
  fold();
  addEventListener("hashchange", go);
  $("contents").addEventListener("click", ({ target }) => {
    if (target.closest("a") && narrow.matches) $("menu").open = false;
  });
  $("filter").addEventListener("input", filter);
  $("filter").addEventListener("keydown", ({ key }) => {
    const first = document.querySelector("article:not([hidden])");
    if (key === "Enter" && first) location.hash = first.id;
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape") clear();
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input")) return;
    event.preventDefault();
    $("filter").focus();
  });
}

async function load(name) {
  const answer = await fetch(`api/chat-api/${name}`);
  if (!answer.ok) throw new Error(`${name} was answered ${answer.status}`);
  return answer.json();
}

try {
  const [openapi, asyncapi] = await Promise.all(["openapi.json", "asyncapi.json"].map(load));
  $("version").textContent = openapi.info.version;
  chapter("HTTP", http(openapi));
  chapter("Sockets", sockets(asyncapi));
  chapter("Schemas", schemas(openapi, asyncapi));
  listen();
  go();
  document.documentElement.dataset.state = "ready";
} catch (error) {
  $("trouble").textContent = `The reference cannot be shown: ${error.message}. Load the page again.`;
}
