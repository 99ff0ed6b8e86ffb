/**
 * Stores (section 12). A store is
 *   get(name, limit): the bytes of an object, or null where there is none. Throws TooLong, before it allocates, where the
 *     object has more than `limit` bytes; a Rejection `untrusted` where it would have to leave the root; anything else
 *     where it cannot tell.
 *   list(prefix): the names of all objects under a prefix that ends with a slash.
 *   lists: false where there is no listing.
 * @typedef {{get: (name: string, limit: number) => Promise<Uint8Array|null>,
 *   list: (prefix: string) => Promise<string[]>, lists?: boolean}} Store
 */
import { LATEST } from "./names.js";

export class TooLong extends Error {
  constructor(name, limit) {
    super(`${name} has more than ${limit} bytes`);
    this.name = "TooLong";
  }
}

/** A place that answered with neither an object nor its absence, or not at all. */
export class StoreFailure extends Error {
  /** @param {string} message @param {number|null} [status] of the answer, where there was one */
  constructor(message, status = null) {
    super(message);
    this.name = "StoreFailure";
    this.status = status;
  }
}

/** Redirects that one request may take [TD-FOL-007]. */
const REDIRECTS = 5;
/**
 * A browser follows redirects by rules of its own, of which a program sees the end only; and its cache asks again with
 * the entity tag that it has.
 */
const IN_A_BROWSER = globalThis.process?.versions?.node === undefined;
/** The names of this machine, to which plain HTTP may lead. */
export const LOOPBACK = new Set(["localhost", "127.0.0.1", "[::1]"]);

/** Whether an answer may be looked for at `next`, from a URL that the user gave. @param {URL} next */
const mayLead = (url, next) =>
  next.protocol === "https:" || (url.startsWith("http:") && next.protocol === "http:" && LOOPBACK.has(next.hostname));

/**
 * The answer to a GET, redirects followed to https alone [TD-FOL-007].
 * @param {string} url
 * @param {{headers?: Object<string, string>, fresh?: boolean, signal?: AbortSignal|null}} [options] fresh: no cache may answer
 *   without asking; signal: ends it
 */
export async function getFollowing(url, { headers = {}, fresh = false, signal = null } = {}) {
  try {
    if (IN_A_BROWSER) {
      const answer = await fetch(url, { cache: fresh ? "no-cache" : "default", signal });
      if (!answer.redirected || mayLead(url, new URL(answer.url))) return answer;
      await answer.body?.cancel();
      throw new StoreFailure(`${url} leads to ${answer.url}, which is not https`);
    }
    let answer = await fetch(url, { headers, redirect: "manual", signal });
    for (let left = REDIRECTS; [301, 302, 303, 307, 308].includes(answer.status); left--) {
      const next = new URL(answer.headers.get("location") ?? "", url);
      await answer.body?.cancel();
      if (left === 0) throw new StoreFailure(`${url}: more than ${REDIRECTS} redirects`);
      if (!mayLead(url, next)) throw new StoreFailure(`${url} leads to ${next}, which is not https`);
      url = String(next);
      answer = await fetch(url, { headers, redirect: "manual", signal });
    }
    return answer;
  } catch (e) {
    if (e instanceof StoreFailure) throw e;
    throw new StoreFailure(`${url}: ${e.cause?.message ?? e.message}`);
  }
}

/** Objects in memory. */
export class MemoryStore {
  /** @param {Map<string, Uint8Array>|Object<string, Uint8Array>} objects */
  constructor(objects) {
    this.objects = objects instanceof Map ? objects : new Map(Object.entries(objects));
  }

  async get(name, limit = Infinity) {
    const bytes = this.objects.get(name);
    if (!bytes) return null;
    if (bytes.length > limit) throw new TooLong(name, limit);
    return bytes;
  }

  async list(prefix) {
    return [...this.objects.keys()].filter((name) => name.startsWith(prefix));
  }
}

/** Files that a person has given to a page: a map of names to File or Blob. */
export class FileStore {
  /** @param {Map<string, Blob>} files */
  constructor(files) {
    this.files = files;
  }

  async get(name, limit = Infinity) {
    const file = this.files.get(name);
    if (!file) return null;
    if (file.size > limit) throw new TooLong(name, limit);
    return new Uint8Array(await file.arrayBuffer());
  }

  async list(prefix) {
    return [...this.files.keys()].filter((name) => name.startsWith(prefix));
  }
}

/**
 * Objects behind HTTP (section 12.5). HTTP has no listing: `list` is a function of the program that knows one, or an
 * array of names; without it a Reader follows the hint.
 */
export class HttpStore {
  /** @param {string} root a URL @param {string[]|((prefix: string) => Promise<string[]>)|null} list */
  constructor(root, list = null) {
    this.root = root.endsWith("/") ? root : `${root}/`;
    this.names = list;
    this.lists = list !== null;
    /** The entity tag and the bytes of the hint. */
    this.hint = null;
    /** Ends the requests that begin from now on. @type {AbortSignal|null} */
    this.signal = null;
  }

  async get(name, limit = Infinity) {
    const known = name === LATEST ? this.hint : null;
    const headers = known ? { "If-None-Match": known.tag } : {};
    const answer = await getFollowing(this.root + name, { headers, fresh: name === LATEST, signal: this.signal });
    if (answer.status === 404 || answer.status === 410) {
      await answer.body?.cancel();
      return null;
    }
    if (answer.status === 304 && known) return known.bytes;
    // No proof of absence, and no error of the format: reported as it is.
    if (!answer.ok) {
      await answer.body?.cancel();
      throw new StoreFailure(`${name}: status ${answer.status}`, answer.status);
    }
    const bytes = await bodyWithin(answer, name, limit);
    const tag = answer.headers.get("etag");
    if (name === LATEST) this.hint = tag ? { tag, bytes } : null;
    return bytes;
  }

  async list(prefix) {
    const names = typeof this.names === "function" ? await this.names(prefix) : this.names;
    return names.filter((name) => name.startsWith(prefix));
  }
}

/** The next part of a body; a connection that breaks is a failure of the place. */
async function nextPart(reader, name) {
  try {
    return await reader.read();
  } catch (e) {
    throw new StoreFailure(`${name}: ${e.cause?.message ?? e.message}`);
  }
}

/** The body of an answer, read no further than the limit, whatever its headers say. */
export async function bodyWithin(answer, name, limit) {
  const parts = [];
  let size = 0;
  if (answer.body) {
    for (const reader = answer.body.getReader(); ; ) {
      const { done, value } = await nextPart(reader, name);
      if (done) break;
      size += value.length;
      if (size > limit) {
        await reader.cancel();
        throw new TooLong(name, limit);
      }
      parts.push(value);
    }
  }
  const out = new Uint8Array(size);
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}
