import { reject } from "./errors.js";

/**
 * The memory budget of section 9.2. Whoever is about to allocate takes the bytes first. They are not given back one by
 * one: a step remembers a mark and returns to it, and only what was taken to be kept stays counted.
 */
export class Budget {
  /** @param {number} bytes */
  constructor(bytes) {
    this.bytes = bytes;
    this.used = 0;
    this.kept = 0;
  }

  get free() {
    return Math.max(0, this.bytes - this.used);
  }

  take(bytes, object, what) {
    if (this.used + bytes > this.bytes) {
      reject("limit", "TD-LIM-002", object, `${what} needs ${bytes} bytes, and ${this.free} of ${this.bytes} are left`);
    }
    this.used += bytes;
  }

  /** For what outlives the step. */
  keep(bytes, object, what) {
    this.take(bytes, object, what);
    this.kept += bytes;
  }

  mark() {
    return { used: this.used, kept: this.kept };
  }

  back(mark) {
    this.used = mark.used + (this.kept - mark.kept);
  }

  /** Begins anew with so many bytes in use. */
  reset(bytes) {
    this.used = bytes;
    this.kept = 0;
  }
}
