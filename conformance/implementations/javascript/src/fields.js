/** The field types of section 4.3. A check gets (value, where, object), and returns the value or rejects. */
import { reject } from "./errors.js";
import { utf8Length } from "./bytes.js";
import { LIMIT } from "./limits.js";

/** The version of the format that this program reads. */
const VERSION = "1.0-rc.1";
const FORMAT = /^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[a-z0-9.]{1,16})?$/;
const DIGEST = /^[0-9a-f]{64}$/;
const SUM = /^[0-9a-f]{16}$/;
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/;
const TIME = /^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)(\.[0-9]{1,9})?Z$/;
const SEGMENT = /^[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_-])?$/;
const DEVICE = /^(con|prn|aux|nul|com[1-9]|lpt[1-9])(\..*)?$/i;

const wrongType = (where, object, want) => reject("malformed", "TD-JSN-012", object, `${where} is no ${want}`);

export function integer(value, where, object) {
  if (typeof value === "number") return value;
  if (typeof value === "bigint") reject("malformed", "TD-JSN-010", object, `${where} is greater than 2^53 - 1`);
  if (value?.notInteger) reject("malformed", "TD-JSN-009", object, `${where} is not written as an integer`);
  return wrongType(where, object, "integer");
}

export function version(value, where, object) {
  const number = integer(value, where, object);
  if (number > LIMIT.version) reject("malformed", "TD-LIM-004", object, `${where} is beyond ${LIMIT.version}`);
  return number;
}

export function string(value, where, object) {
  return typeof value === "string" ? value : wrongType(where, object, "string");
}

export const matching = (pattern, what) => (value, where, object) => {
  if (!pattern.test(string(value, where, object))) reject("malformed", "TD-JSN-015", object, `${where} is no ${what}`);
  return value;
};
export const digest = matching(DIGEST, "digest of 64 hex digits");
export const sum = matching(SUM, "sum of 16 hex digits");
export const uuid = matching(UUID, "UUID in lower case");
export const time = matching(TIME, "time");

export function path(value, where, object) {
  if (string(value, where, object).length > LIMIT.path) {
    reject("malformed", "TD-PTH-002", object, `${where} has more than ${LIMIT.path} characters`);
  }
  if (!value.split("/").every((part) => SEGMENT.test(part) && !DEVICE.test(part))) reject("malformed", "TD-PTH-001", object, `${where} is no path`);
  return value;
}

export const pathUnder = (prefix, rule) => (value, where, object) => {
  if (!path(value, where, object).startsWith(prefix)) {
    reject("malformed", rule, object, `${where} does not begin with ${prefix}`);
  }
  return value;
};

export function array(value, where, object) {
  return Array.isArray(value) ? value : wrongType(where, object, "array");
}

export function object(value, where, name) {
  return value instanceof Map ? value : wrongType(where, name, "object");
}

export const orNull = (check) => (value, where, name) => (value === null ? null : check(value, where, name));

export function annotations(value, where, name) {
  for (const [key, text] of object(value, where, name)) string(text, `${where}.${key.slice(0, 80)}`, name);
  if (value.size > LIMIT.annotations) reject("limit", "TD-LIM-004", name, `${where} has more than ${LIMIT.annotations} members`);
  for (const [key, text] of value) {
    if (utf8Length(key) + utf8Length(text) > LIMIT.annotationBytes) {
      reject("limit", "TD-LIM-001", name, `${where}.${key.slice(0, 80)} has more than ${LIMIT.annotationBytes} bytes`);
    }
  }
  return Object.fromEntries(value);
}

/** A required field. `where` is the place of the map in the object, with a dot at its end, or empty. */
export function required(map, field, check, name, where = "") {
  if (!map.has(field)) reject("malformed", "TD-JSN-011", name, `${where}${field} is absent`);
  return check(map.get(field), where + field, name);
}

/** An optional field; null is no absence. */
export function optional(map, field, check, name, absent, where = "") {
  return map.has(field) ? check(map.get(field), where + field, name) : absent;
}

/** [TD-VER-001]: called before any other field is looked at. */
export function checkFormat(map, name) {
  const format = required(map, "tensordelta", string, name);
  if (!FORMAT.test(format)) reject("malformed", "TD-JSN-015", name, "tensordelta is no version of the format");
  if (format === "1.0") reject("unsupported", "TD-VER-002", name, `written by a draft of the format; this program reads ${VERSION}`);
  if (format !== VERSION) reject("unsupported", "TD-VER-002", name, `tensordelta is ${format.slice(0, 40)}, and this program reads ${VERSION}`);
}
