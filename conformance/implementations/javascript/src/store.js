/**
 * Stores (section 12). A store is
 *   get(name, limit): the bytes of an object, or null where there is none. Throws TooLong, before it allocates, where the
 *     object has more than `limit` bytes; a Rejection `untrusted` where it would have to leave the root; anything else
 *     where it cannot tell.
 *   list(prefix): the names of all objects under a prefix that ends with a slash.
 * @typedef {{get: (name: string, limit: number) => Promise<Uint8Array|null>,
 *   list: (prefix: string) => Promise<string[]>}} Store
 */
export class TooLong extends Error {
  constructor(name, limit) {
    super(`${name} has more than ${limit} bytes`);
    this.name = "TooLong";
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
 * Objects behind HTTP. HTTP has no listing: `list` is a function of the program that knows one, or an array of names.
 */
export class HttpStore {
  /** @param {string} root a URL @param {string[]|((prefix: string) => Promise<string[]>)} list */
  constructor(root, list) {
    this.root = root.endsWith("/") ? root : `${root}/`;
    this.names = list;
  }

  async get(name, limit = Infinity) {
    const answer = await fetch(this.root + name, { cache: "no-cache" });
    if (answer.status === 404 || answer.status === 410) return null;
    // No proof of absence, and no error of the format: reported as it is.
    if (!answer.ok) throw new Error(`${name}: status ${answer.status}`);
    return bodyWithin(answer, name, limit);
  }

  async list(prefix) {
    const names = typeof this.names === "function" ? await this.names(prefix) : this.names;
    return names.filter((name) => name.startsWith(prefix));
  }
}

/** The body of an answer, read no further than the limit, whatever its headers say. */
export async function bodyWithin(answer, name, limit) {
  const parts = [];
  let size = 0;
  if (answer.body) {
    for (const reader = answer.body.getReader(); ; ) {
      const { done, value } = await reader.read();
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
