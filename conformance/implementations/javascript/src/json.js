/**
 * The JSON of section 4.3. JSON.parse is not strict enough: it takes the last of two equal names, mends nothing about
 * lone surrogates, and loses how a number was written.
 *
 * Objects become Maps, arrays Arrays. An integer literal (`0|[1-9][0-9]*`) becomes a number up to 2^53 - 1 and a bigint
 * up to 20 digits; every other number becomes NOT_INTEGER, because no field of the format has one.
 */
import { reject } from "./errors.js";
import { fromUtf8 } from "./bytes.js";
import { LIMIT } from "./limits.js";

/** A legal JSON number that no integer field may have. */
export const NOT_INTEGER = Object.freeze({ notInteger: true });

const NUMBER = /-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/y;
const PLAIN = /[^"\\\u0000-\u001f]*/y;
const SPACE = /[ \t\n\r]*/y;
const HEX4 = /^[0-9a-fA-F]{4}$/;
const ESCAPES = { '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" };

class Parser {
  constructor(text, object, budget) {
    this.text = text;
    this.object = object;
    this.budget = budget;
    this.at = 0;
    this.owed = 0;
  }

  bad(what, rule = "TD-JSN-003") {
    reject("malformed", rule, this.object, `${what} at character ${this.at}`);
  }

  /** Parsed values are memory too: a short text can make many small objects. */
  charge(bytes) {
    this.owed += bytes;
    if (this.owed >= 65536) this.settle();
  }

  settle() {
    this.budget?.take(this.owed, this.object, "parsed JSON");
    this.owed = 0;
  }

  space() {
    const c = this.text.charCodeAt(this.at);
    if (c !== 0x20 && c !== 0x0a && c !== 0x0d && c !== 0x09) return;
    SPACE.lastIndex = this.at;
    SPACE.test(this.text);
    this.at = SPACE.lastIndex;
  }

  value(depth) {
    const c = this.text[this.at];
    if (c === "{") return this.members(depth + 1);
    if (c === "[") return this.items(depth + 1);
    if (c === '"') return this.string();
    if (c === "t") return this.literal("true", true);
    if (c === "f") return this.literal("false", false);
    if (c === "n") return this.literal("null", null);
    return this.number();
  }

  literal(word, value) {
    if (!this.text.startsWith(word, this.at)) this.bad("no JSON value", "TD-JSN-003");
    this.at += word.length;
    return value;
  }

  number() {
    NUMBER.lastIndex = this.at;
    const found = NUMBER.exec(this.text);
    if (!found) {
      const rest = this.text.slice(this.at, this.at + 9);
      this.bad("no JSON value", /^(NaN|-?Infinity)/.test(rest) ? "TD-JSN-007" : "TD-JSN-003");
    }
    this.at = NUMBER.lastIndex;
    const literal = found[0];
    if (!/^[0-9]+$/.test(literal) || literal.length > 20) return NOT_INTEGER;
    const number = Number(literal);
    return Number.isSafeInteger(number) ? number : BigInt(literal);
  }

  string() {
    const { text } = this;
    this.at++;
    let parts = null;
    let whole = "";
    for (;;) {
      PLAIN.lastIndex = this.at;
      PLAIN.test(text);
      const end = PLAIN.lastIndex;
      const part = text.slice(this.at, end);
      this.at = end;
      const c = text[end];
      this.charge(2 * part.length + 2);
      if (c === '"') {
        this.at++;
        this.charge(32);
        if (parts === null) return part;
        parts.push(part);
        return whole + parts.join("");
      }
      if (c !== "\\") this.bad(c === undefined ? "a string without end" : "a control character in a string");
      parts ??= [];
      parts.push(part, this.escape());
      if (parts.length > 8192) { // a chunk table is one string with an escape at every name
        whole += parts.join("");
        parts = [];
      }
    }
  }

  escape() {
    const c = this.text[this.at + 1];
    if (c !== "u") {
      const plain = ESCAPES[c];
      if (plain === undefined || !Object.hasOwn(ESCAPES, c)) this.bad("an unknown escape");
      this.at += 2;
      return plain;
    }
    const unit = this.unit(this.at);
    if (unit >= 0xd800 && unit < 0xe000) {
      const low = unit < 0xdc00 && this.text[this.at + 6] === "\\" && this.text[this.at + 7] === "u"
        ? this.unit(this.at + 6) : 0;
      if (low < 0xdc00 || low > 0xdfff) this.bad("a surrogate that is not part of a pair", "TD-JSN-005");
      this.at += 12;
      return String.fromCharCode(unit, low);
    }
    this.at += 6;
    return String.fromCharCode(unit);
  }

  unit(at) {
    const digits = this.text.slice(at + 2, at + 6);
    if (!HEX4.test(digits)) this.bad("an escape without four hex digits");
    return parseInt(digits, 16);
  }

  enter(depth) {
    if (depth > LIMIT.nesting) {
      reject("limit", "TD-JSN-008", this.object, `nested deeper than ${LIMIT.nesting} levels at character ${this.at}`);
    }
    this.at++;
    this.space();
  }

  items(depth) {
    this.enter(depth);
    const out = [];
    this.charge(48);
    if (this.text[this.at] === "]") {
      this.at++;
      return out;
    }
    for (;;) {
      out.push(this.value(depth));
      this.charge(16);
      this.space();
      const c = this.text[this.at++];
      if (c === "]") return out;
      if (c !== ",") {
        this.at--;
        this.bad("neither , nor ] in an array");
      }
      this.space();
    }
  }

  members(depth) {
    this.enter(depth);
    const out = new Map();
    this.charge(160);
    if (this.text[this.at] === "}") {
      this.at++;
      return out;
    }
    for (;;) {
      if (this.text[this.at] !== '"') this.bad("no member name");
      const name = this.string();
      if (out.has(name)) this.bad(`a second member ${JSON.stringify(name.slice(0, 80))}`, "TD-JSN-004");
      this.space();
      if (this.text[this.at] !== ":") this.bad("no : after a member name");
      this.at++;
      this.space();
      out.set(name, this.value(depth));
      this.charge(48);
      this.space();
      const c = this.text[this.at++];
      if (c === "}") return out;
      if (c !== ",") {
        this.at--;
        this.bad("neither , nor } in an object");
      }
      this.space();
    }
  }
}

/**
 * @param {Uint8Array} bytes
 * @param {string} object named in rejections
 * @param {import("./budget.js").Budget} [budget]
 * @returns {Map<string, any>}
 */
export function parseJson(bytes, object, budget) {
  budget?.take(2 * bytes.length, object, "JSON text");
  let text;
  try {
    text = fromUtf8(bytes);
  } catch (e) {
    if (!(e instanceof TypeError)) throw e;
    reject("malformed", "TD-JSN-001", object, "not valid UTF-8");
  }
  return parseText(text, object, budget);
}

/** The same for a string, such as the chunk table in a header. It has no lone surrogates: its parser saw to that. */
export function parseText(text, object, budget) {
  if (text.charCodeAt(0) === 0xfeff) reject("malformed", "TD-JSN-002", object, "begins with a byte order mark");
  const parser = new Parser(text, object, budget);
  parser.space();
  if (text[parser.at] !== "{") parser.bad("no JSON object");
  const value = parser.members(1);
  parser.space();
  if (parser.at !== text.length) parser.bad("something after the JSON object");
  parser.settle();
  return value;
}
