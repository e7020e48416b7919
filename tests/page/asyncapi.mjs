// Holds the AsyncAPI document against the parser of its makers, and frames against its schemas: node asyncapi.mjs <document> < frames.json
// Each frame is {"side": "receive" or "send" (the server's), "frame": any JSON, "good": what the server says of it, "session": true or false}.

import { readFile } from "node:fs/promises";
import { text } from "node:stream/consumers";
import { Parser } from "@asyncapi/parser";
import Ajv from "ajv";

const source = await readFile(process.argv[2], "utf8");
const frames = JSON.parse(await text(process.stdin));
const failures = [];

const { document: parsed, diagnostics } = await new Parser().parse(source);
// The newest version of AsyncAPI is not ours.
for (const { severity, code, message, path } of diagnostics) {
  if (code !== "asyncapi-latest-version") failures.push(`the parser says (${severity}): ${message} at ${path.join(".")}`);
}
if (!parsed) failures.push("the parser has no document");

const document = JSON.parse(source);
const ajv = new Ajv({ strict: true, strictTypes: false, strictRequired: false, allErrors: true, formats: { int32: true, int64: true, "date-time": true } });

/** Readers let unknown fields pass; here they would be fields that nobody described. */
function close(schema) {
  if (schema === null || typeof schema !== "object") return schema;
  if (Array.isArray(schema)) return schema.map(close);
  const closed = Object.fromEntries(Object.entries(schema).map(([key, value]) => [key, close(value)]));
  return schema.type === "object" && schema.properties && !("additionalProperties" in schema) ? { ...closed, additionalProperties: false } : closed;
}

ajv.addVocabulary(["components"]);
const components = { schemas: close(document.components.schemas) };
const compile = ({ payload }) => ajv.compile({ ...close(payload), components });
const kinds = { receive: new Map(), send: new Map() };
for (const { action, messages, reply } of Object.values(document.operations)) {
  const named = (references) => references.map(({ $ref }) => $ref.split("/").at(-1));
  for (const name of named(messages)) kinds[action].set(name, null);
  if (reply) for (const name of named(reply.messages)) kinds.send.set(name, null);
}
for (const names of Object.values(kinds)) {
  for (const name of names.keys()) {
    const message = document.components.messages[name];
    names.set(name, { message, validate: compile(message), sessions: !message.tags.some((tag) => tag.name === "chat.plain") });
  }
}

/** Which kind a frame is, by its type; one whose type is a word of its sender's is a message. */
function kindOf(side, frame) {
  const word = side === "receive" ? "publish" : "message";
  return frame?.type !== word && kinds[side].has(frame?.type) ? frame.type : word;
}

function judge({ side, frame, good, session }) {
  const name = kindOf(side, frame);
  const { validate, sessions } = kinds[side].get(name);
  const valid = validate(frame);
  const shown = `${side} ${JSON.stringify(frame).slice(0, 300)}`;
  if (valid !== good) failures.push(`${shown}: the schema of ${name} says ${valid}, the server ${good}: ${ajv.errorsText(validate.errors)}`);
  if (valid && good && sessions && session === false) failures.push(`${shown}: a plain socket got what is said to be for sessions only`);
}

for (const frame of frames) judge(frame);
let examples = 0;
for (const [side, names] of Object.entries(kinds)) {
  for (const { message } of names.values()) {
    for (const { payload } of message.examples) {
      examples += 1;
      judge({ side, frame: payload, good: true });
    }
  }
}
for (const name of Object.keys(document.components.messages)) {
  if (!kinds.receive.has(name) && !kinds.send.has(name)) failures.push(`no operation has ${name}`);
}

for (const failure of failures.slice(0, 20)) console.log(`FAIL  ${failure}`);
const seen = Object.fromEntries(Object.keys(kinds).map((side) => [side, [...new Set(frames.filter((one) => one.side === side).map((one) => kindOf(side, one.frame)))].sort()]));
console.log(JSON.stringify({ failed: failures.length, frames: frames.length, examples, seen }));
