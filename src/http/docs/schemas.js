// Elements for texts, examples and JSON schemas. Knows nothing of OpenAPI and AsyncAPI but where both keep their schemas.

/** Makes an element. Children are elements or texts; what is null or false is left out. */
export function element(name, attributes, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes ?? {})) made.setAttribute(key, value);
  made.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return made;
}

/** A text with `code` in backticks. */
export function prose(text) {
  return (text ?? "").split("`").map((part, index) => (index % 2 ? element("code", {}, part) : part));
}

/** Paragraphs, divided by empty lines. */
export function paragraphs(text) {
  return (text ?? "").split(/\n\s*\n/).filter(Boolean).map((part) => element("p", {}, prose(part)));
}

/** A value as it stands on the wire, laid out for reading: what it is comes first. */
export function json(value, label) {
  const frame = value?.type === undefined ? value : { type: value.type, ...value };
  return element("pre", { tabindex: "0", role: "region", "aria-label": label }, JSON.stringify(frame, null, 2));
}

/** Terms and what is said of them: `[term, details]`, each one child or a list. */
export function list(rows) {
  return element("dl", {}, rows.map(([term, details]) => [element("dt", {}, term), element("dd", {}, details)]));
}

export const anchor = (...words) => words.join("-").replaceAll(/[^A-Za-z0-9]+/g, "-").replaceAll(/^-+|-+$/g, "");
const nameOf = (reference) => reference.split("/").at(-1);
const link = (name) => element("a", { href: `#${anchor("schema", name)}` }, name);
const code = (value) => element("code", {}, typeof value === "string" ? value : JSON.stringify(value));

/** What values a schema allows, in a few words. */
export function typeOf(schema = {}) {
  if (schema.$ref) return [link(nameOf(schema.$ref))];
  const choices = schema.oneOf ?? schema.anyOf;
  if (choices) return separated(choices.map(typeOf), " or ");
  if (schema.allOf && !schema.type) return separated(schema.allOf.map(typeOf), " and ");
  if (schema.const !== undefined) return [code(schema.const)];
  if (schema.enum) return separated(schema.enum.map((value) => [code(value)]), ", ");
  if (schema.type === "array") return ["list of ", typeOf(schema.items)];
  if (schema.type === "object" && schema.additionalProperties) return ["object, each value ", typeOf(schema.additionalProperties)];
  const name = { string: "text", boolean: "true or false" }[schema.type] ?? schema.type ?? "any JSON";
  return [schema.format && schema.type === "string" ? `${name} (${schema.format})` : name, limits(schema)];
}

function limits({ minimum, maximum, minLength, maxLength, pattern }) {
  const range = (least, most, what) => {
    if (most === undefined) return least ? `, at least ${least}${what}` : "";
    return least === undefined ? `, at most ${most}${what}` : `, ${least} to ${most}${what}`;
  };
  return [range(minimum, maximum, ""), range(minLength, maxLength, " characters"), pattern && [", like ", code(pattern)]];
}

function separated(parts, separator) {
  return parts.flatMap((part, index) => (index ? [separator, part] : [part]));
}

/** The fields of an object: `type`, then those that have to be there; or, for other schemas, what they allow. */
export function fieldsOf(schema = {}) {
  const variants = schema.oneOf?.filter((variant) => variant.properties);
  if (variants?.length) return separated(variants.map((variant) => [fieldsOf(variant)]), element("p", {}, "or"));
  const required = new Set(schema.required);
  const fields = Object.entries(schema.properties ?? {});
  if (!fields.length) return element("p", {}, typeOf(schema));
  const rank = (name) => (name === "type" ? 0 : required.has(name) ? 1 : 2);
  fields.sort(([a], [b]) => rank(a) - rank(b));
  return list(fields.map(([name, field]) => [named(name, required.has(name)), [element("p", { class: "type" }, typeOf(field)), paragraphs(field.description)]]));
}

/** A name, and whether it may be absent. */
export function named(name, required) {
  return [element("code", {}, name), !required && [" ", element("span", { class: "faint" }, "may be absent")]];
}

/** An example of a schema: its own, or one put together from those of its fields. */
export function exampleOf(schema, schemas) {
  if (!schema) return undefined;
  if (schema.$ref) return exampleOf(schemas[nameOf(schema.$ref)], schemas);
  const own = schema.example ?? schema.examples?.[0] ?? schema.const ?? schema.enum?.[0];
  if (own !== undefined) return own;
  if (schema.oneOf) return exampleOf(schema.oneOf[0], schemas);
  if (schema.type === "array") return [exampleOf(schema.items, schemas)];
  if (!schema.properties) return { boolean: true, integer: 1, string: "…" }[schema.type] ?? {};
  const shown = Object.entries(schema.properties).filter(([name, field]) => schema.required?.includes(name) || field.example !== undefined);
  return Object.fromEntries(shown.map(([name, field]) => [name, exampleOf(field, schemas)]));
}
