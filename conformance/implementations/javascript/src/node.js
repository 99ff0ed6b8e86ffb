/** What only Node has: folders, its digest, files of held states. */
import { createHash, createPublicKey, verify as verifySignature } from "node:crypto";
import { constants } from "node:fs";
import { lstat, open, readdir, readlink, realpath, rename, rm } from "node:fs/promises";
import { basename, dirname, join, resolve, sep } from "node:path";
import { fileURLToPath } from "node:url";
import { LOOPBACK, StoreFailure, TooLong, bodyWithin, getFollowing } from "./store.js";
import { Rejection, reject } from "./errors.js";
import { toUtf8 } from "./bytes.js";
import { openSafetensors, plainEntries } from "./safetensors.js";
import { entryOf } from "./layout.js";
import { State } from "./state.js";

export const nodeDigest = async (bytes) => createHash("sha256").update(bytes).digest("hex");

/** What stands before the 32 bytes of an Ed25519 key in DER (RFC 8410). */
const KEY_HEAD = Buffer.from("302a300506032b6570032100", "hex");

/** Whether a signature over a message is that of a key; see webVerify in signature.js. */
export async function nodeVerify(key, signature, message) {
  const der = Buffer.concat([KEY_HEAD, key]);
  return verifySignature(null, message, createPublicKey({ key: der, format: "der", type: "spki" }), signature);
}

const ABSENT = new Set(["ENOENT", "ENOTDIR", "ENAMETOOLONG"]);

/** Reads an open file of a known size, and not more, also where it grows meanwhile. */
async function readWhole(handle, size) {
  const bytes = new Uint8Array(size);
  let at = 0;
  while (at < size) {
    const { bytesRead } = await handle.read(bytes, at, Math.min(size - at, 2 ** 30), at);
    if (bytesRead === 0) return bytes.slice(0, at);
    at += bytesRead;
  }
  return bytes;
}

/** The bytes of a regular file, or null for what is none. Never waits for a pipe, never follows a link. */
async function readRegular(path, name, limit) {
  let handle;
  try {
    handle = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (e) {
    if (ABSENT.has(e.code)) return null;
    throw e;
  }
  try {
    const status = await handle.stat();
    if (!status.isFile()) return null;
    if (status.size > limit) throw new TooLong(name, limit);
    return await readWhole(handle, status.size);
  } finally {
    await handle.close();
  }
}

/** A folder (section 12.2). */
export class FolderStore {
  /** @param {string} root it may itself be a link */
  constructor(root) {
    this.root = root;
    this.real = null;
  }

  async start() {
    if (this.real === null) {
      try {
        this.real = await realpath(this.root);
      } catch (e) {
        if (!ABSENT.has(e.code)) throw e;
        this.real = resolve(this.root); // nothing will be found there
      }
    }
    return this.real;
  }

  /**
   * Follows links by hand, so that none is followed out of the root.
   * @returns {Promise<{path: string, status: import("node:fs").Stats}|null>} null: nothing is there
   */
  async locate(name) {
    const root = await this.start();
    let parts = name.split("/").filter((part) => part !== "");
    let path = root;
    let links = 0;
    let status = null;
    while (parts.length > 0) {
      const [part, ...rest] = parts;
      path = join(path, part);
      try {
        status = await lstat(path);
      } catch (e) {
        if (ABSENT.has(e.code)) return null;
        throw e;
      }
      parts = rest;
      if (!status.isSymbolicLink()) continue;
      if (++links > 40) return null; // a circle
      const target = resolve(dirname(path), await readlink(path));
      if (target !== root && !target.startsWith(root + sep)) {
        reject("untrusted", "TD-STO-006", name, "a link leads out of the root");
      }
      parts = [...target.slice(root.length).split(sep).filter((p) => p !== ""), ...rest];
      path = root;
    }
    return status && { path, status };
  }

  async get(name, limit = Infinity) {
    const found = await this.locate(name);
    if (!found || !found.status.isFile()) return null;
    return readRegular(found.path, name, limit);
  }

  async list(prefix) {
    const folder = await this.locate(prefix);
    if (!folder || !folder.status.isDirectory()) return [];
    const names = [];
    for (const entry of await readdir(folder.path, { withFileTypes: true })) {
      const name = prefix + entry.name;
      if (entry.isFile()) names.push(name);
      else if (entry.isSymbolicLink() && await this.isObject(name)) names.push(name);
    }
    return names;
  }

  /** A link out of the root counts as an object here: whoever reads it is told what it is. */
  async isObject(name) {
    try {
      const found = await this.locate(name);
      return found !== null && found.status.isFile();
    } catch (e) {
      if (e.error === "untrusted") return true;
      throw e;
    }
  }
}

/** A folder in which packs may lie under any name; they are known by size and digest. @param {string} folder */
export const folderPlace = (folder) => ({
  async find(sha256, size) {
    let entries;
    try {
      entries = await readdir(folder, { withFileTypes: true });
    } catch (e) {
      if (ABSENT.has(e.code)) return null;
      throw e;
    }
    for (const entry of entries) {
      if (!entry.isFile()) continue;
      const path = join(folder, entry.name);
      const status = await lstat(path);
      if (status.size !== size) continue;
      const bytes = await readRegular(path, entry.name, size);
      if (bytes && await nodeDigest(bytes) === sha256) return bytes;
    }
    return null;
  },
});

/** Sources for schemes that a user may allow; none is allowed unless named. */
const SOURCES = {
  async file(uri, size) {
    let path;
    try {
      path = fileURLToPath(uri);
    } catch {
      return null; // no path of this machine
    }
    const status = await lstat(path).catch((e) => {
      if (ABSENT.has(e.code)) return null;
      throw e;
    });
    if (!status) return null;
    return readRegular(await realpath(path), uri, size);
  },
  async http(uri, size) {
    return LOOPBACK.has(new URL(uri).hostname) ? SOURCES.https(uri, size) : null;
  },
  async https(uri, size) {
    const answer = await getFollowing(uri);
    if (answer.status === 404 || answer.status === 410) return null;
    if (!answer.ok) throw new StoreFailure(`${uri}: status ${answer.status}`);
    return bodyWithin(answer, uri, size);
  },
};

/** @param {string[]} schemes that the user allows */
export const sourcesFor = (schemes) =>
  Object.fromEntries(schemes.map((scheme) => [scheme, Object.hasOwn(SOURCES, scheme) ? SOURCES[scheme] : null]));

/**
 * The state of a safetensors file. @param {string} path
 * @param {{version?: number|null, only?: string[]|null}} options
 */
export async function loadState(path, { version = null, only = null } = {}) {
  const bytes = await readRegular(await realpath(path), path, Infinity);
  if (!bytes) throw new Error(`${path} is no file`);
  const name = basename(path);
  try {
    return stateOf(bytes, name, version, only);
  } catch (e) {
    // The file is the user's own, and no object of a chain that could be rejected.
    throw e instanceof Rejection ? new Error(`${path}: ${e.message}`) : e;
  }
}

function stateOf(bytes, name, version, only) {
  const { header, buffer } = openSafetensors(bytes, name);
  const list = plainEntries(header, buffer.length, name)
    .filter((e) => !only || only.includes(e.name))
    .map((e) => ({ entry: entryOf(e.name, e.dtype.name, e.shape, name, ""), bytes: buffer.slice(e.begin, e.end) }));
  return State.of(list, version, only !== null);
}

/** Writes a state to a safetensors file: whole, or not at all. @param {State} state */
export async function saveState(state, path) {
  const header = {};
  let at = 0;
  // Larger elements first, so that every tensor begins where its words may.
  const tensors = [...state.tensors.values()].sort((a, b) => b.entry.dtype.w - a.entry.dtype.w);
  for (const { entry, bytes } of tensors) {
    Object.defineProperty(header, entry.name, {
      value: { dtype: entry.dtype.name, shape: entry.shape, data_offsets: [at, at + bytes.length] }, enumerable: true,
    });
    at += bytes.length;
  }
  const text = toUtf8(JSON.stringify(header));
  const head = new Uint8Array(8 + Math.ceil(text.length / 8) * 8).fill(0x20);
  new DataView(head.buffer).setBigUint64(0, BigInt(head.length - 8), true);
  head.set(text, 8);
  const temporary = join(dirname(path), `.tmp-${process.pid}-${basename(path)}`);
  const handle = await open(temporary, "w");
  try {
    await handle.writeFile(head);
    for (const { bytes } of tensors) await handle.writeFile(bytes);
    await handle.close();
    await rename(temporary, path);
  } catch (e) {
    await handle.close().catch(() => {});
    await rm(temporary, { force: true });
    throw e;
  }
}
