/**
 * The closed set of rejections (SPEC.md section 17).
 * Anything that is thrown and is no Rejection (a store that does not answer, a bug) is outside the set and is never
 * dressed up as one.
 */
export const ERROR_NAMES = Object.freeze([
  "malformed", "unsupported", "limit", "integrity", "wrong-base", "missing", "conflict", "untrusted",
]);

export class Rejection extends Error {
  /**
   * @param {string} error a name of section 17
   * @param {string} rule the id of the requirement that is broken
   * @param {string} object the object at fault, relative to the root
   * @param {string} message what is wrong with it
   */
  constructor(error, rule, object, message) {
    super(message);
    this.name = "Rejection";
    this.error = error;
    this.rule = rule;
    this.object = object;
  }

  toJSON() {
    return { error: this.error, object: this.object, rule: this.rule, message: this.message };
  }
}

/** Throws a Rejection. @returns {never} */
export function reject(error, rule, object, message) {
  throw new Rejection(error, rule, object, message);
}
