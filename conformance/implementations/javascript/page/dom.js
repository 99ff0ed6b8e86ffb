/** What the parts of the page do with the document. */
import { DEFAULT_MEMORY } from "../src/reader.js";
import { Slip, inWords } from "./sentences.js";

export const $ = (id) => document.getElementById(id);

/**
 * An element. @param {string} tag @param {object} [properties] of the element; `attributes`: by name
 * @param {...(Node|string)} children
 */
export function make(tag, { attributes = {}, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** What the user allows Readers and Verifiers. */
export function limits() {
  const keys = $("keys").value.split(/[\s,]+/).filter((key) => key !== "");
  const wrong = keys.find((key) => !/^[0-9a-f]{64}$/.test(key));
  if (wrong !== undefined) throw new Slip(`“${wrong.slice(0, 70)}” is not a public key.`, "A public key has 64 hex digits; correct it in the settings, or leave the field empty.");
  const memory = Number($("memory").value);
  return { keys, memory: memory > 0 ? 2 ** 20 * memory : DEFAULT_MEMORY };
}

/** An error as a sentence, an advice, and what an implementer wants to know. */
export function sentences(e, context) {
  const { sentence, advice, detail } = inWords(e, context);
  const parts = [make("p", {}, make("strong", {}, sentence), ` ${advice}`)];
  if (detail) parts.push(make("details", {}, make("summary", {}, "For implementers"), make("code", {}, detail)));
  return parts;
}

export function complain(e, context) {
  if (e.name === "AbortError") return say("Stopped.");
  $("error").replaceChildren(...sentences(e, context));
  $("error").hidden = false;
  return undefined;
}

export function noComplaint() {
  $("error").hidden = true;
  $("error").replaceChildren();
}

export const say = (text) => {
  $("status").textContent = text;
};
