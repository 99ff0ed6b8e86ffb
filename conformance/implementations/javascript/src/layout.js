/** Layouts (section 4.6). */
import { parseJson } from "./json.js";
import { array, checkFormat, integer, object as anObject, required, string } from "./fields.js";
import { compareUtf8, utf8Length } from "./bytes.js";
import { DTYPES } from "./dtypes.js";
import { LIMIT } from "./limits.js";
import { reject } from "./errors.js";
import { seed } from "./fingerprint.js";

/** One tensor of a layout. */
export class Entry {
  constructor(name, dtype, shape, words) {
    this.name = name;
    this.dtype = dtype;
    this.shape = shape;
    this.words = words;
    this.start = undefined;
  }

  get bytes() {
    return this.words * (this.dtype.w / 8);
  }

  /** The seed of the tensor's coefficients; hashed when first needed. */
  get seed() {
    this.start ??= seed(this.name);
    return this.start;
  }

  /** Same name, dtype and shape. */
  equals(other) {
    return this.name === other.name && this.sameType(other);
  }

  sameType(other) {
    return this.dtype === other.dtype && sameShape(this.shape, other.shape);
  }
}

export const sameShape = (a, b) => a.length === b.length && a.every((n, i) => n === b[i]);

export class Layout {
  /** @param {Entry[]} tensors @param {string|null} digest null: no object is known that says this */
  constructor(tensors, digest = null) {
    this.tensors = tensors;
    this.digest = digest;
    this.places = null;
  }

  /** The index of a tensor by name, or undefined. */
  indexOf(name) {
    this.places ??= new Map(this.tensors.map((t, i) => [t.name, i]));
    return this.places.get(name);
  }

  equals(other) {
    if (this === other || (this.digest !== null && this.digest === other.digest)) return true;
    return this.tensors.length === other.tensors.length && this.tensors.every((t, i) => t.equals(other.tensors[i]));
  }
}

export const EMPTY_LAYOUT = new Layout([]);

/** The number of words of a shape, or a rejection. `limit` is the rule for whole shapes. */
export function entryOf(name, dtypeName, shape, object, where) {
  const dtype = DTYPES.get(dtypeName);
  if (!dtype) reject("unsupported", "TD-WRD-004", object, `${where}dtype ${JSON.stringify(dtypeName.slice(0, 40))} is unknown`);
  if (shape.length > LIMIT.dimensions) reject("limit", "TD-LIM-004", object, `${where}shape has more than ${LIMIT.dimensions} dimensions`);
  let product = 1;
  let elements = 1;
  for (const n of shape) {
    if (n > LIMIT.elements) reject("limit", "TD-LIM-004", object, `${where}shape has a dimension beyond 2^48`);
    if (n !== 0) product *= n;
    if (product > LIMIT.elements) reject("limit", "TD-LAY-007", object, `${where}shape has more than 2^48 elements`);
    elements *= n;
  }
  const bits = elements * dtype.bits;
  if (bits % 8 !== 0) reject("malformed", "TD-WRD-005", object, `${where}${elements} elements of ${dtype.bits} bits do not fill bytes`);
  return new Entry(name, dtype, shape, bits / dtype.w);
}

/** @param {Uint8Array} bytes @param {string} object its name @param {string} digest of the bytes, checked already */
export function parseLayout(bytes, object, digest, budget) {
  const map = parseJson(bytes, object, budget);
  checkFormat(map, object);
  const list = required(map, "tensors", array, object);
  if (list.length > LIMIT.tensors) reject("limit", "TD-LIM-004", object, `more than ${LIMIT.tensors} tensors`);
  const tensors = list.map((item, i) => {
    const where = `tensors[${i}].`;
    anObject(item, `tensors[${i}]`, object);
    const name = required(item, "name", string, object, where);
    const size = utf8Length(name);
    if (size < 1 || size > LIMIT.tensorName) reject("malformed", "TD-LAY-003", object, `${where}name has ${size} bytes`);
    if (name === "__metadata__") reject("malformed", "TD-LAY-004", object, `${where}name is __metadata__`);
    const dtype = required(item, "dtype", string, object, where);
    const shape = required(item, "shape", array, object, where);
    shape.forEach((n, k) => integer(n, `${where}shape[${k}]`, object));
    return entryOf(name, dtype, shape, object, where);
  });
  for (let i = 1; i < tensors.length; i++) {
    if (compareUtf8(tensors[i - 1].name, tensors[i].name) >= 0) {
      reject("malformed", "TD-LAY-002", object, `tensors[${i}] does not come after the tensor before it`);
    }
  }
  const total = tensors.reduce((sum, entry) => sum + BigInt(entry.bytes), 0n);
  if (total > LIMIT.stateBytes) reject("limit", "TD-LIM-004", object, "words of more than 2^53 bytes");
  return new Layout(tensors, digest);
}
