/** The objects of one chain, read, checked and remembered for the time of one read. */
import { parseChain, parseLatest } from "./chain.js";
import { parseLayout } from "./layout.js";
import { parseManifest } from "./manifest.js";
import {
  CHAIN, LATEST, fingerprintsName, layoutName, manifestName, manifestVersion, retiredName, shortcutEdge,
} from "./names.js";
import { LIMIT } from "./limits.js";
import { Rejection, reject } from "./errors.js";
import { TooLong } from "./store.js";
import { webDigest } from "./digest.js";
import { Keys, parseSignature } from "./signature.js";

/**
 * @typedef {(uri: string, size: number) => Promise<Uint8Array|null>} Source
 * @typedef {{find: (sha256: string, size: number) => Promise<Uint8Array|null>}} Place
 */
export class Objects {
  /**
   * @param {import("./store.js").Store} store
   * @param {import("./budget.js").Budget} budget
   * @param {{digest?: (bytes: Uint8Array) => Promise<string>, places?: Place[], sources?: Object<string, Source|null>,
   *   keys?: string[], threshold?: number, verifySignature?: typeof import("./signature.js").webVerify,
   *   breathe?: () => Promise<void>}} options
   *   breathe: is awaited between pieces of work, so that others of the same thread have their turn;
   *   sources: the schemes that the user allows; null for one that is allowed and not known
   */
  constructor(store, budget, { digest = webDigest, places = [], sources = {}, keys = [], threshold, verifySignature, breathe = async () => {} } = {}) {
    this.store = store;
    this.budget = budget;
    this.digest = digest;
    this.places = places;
    this.breathe = breathe;
    this.sources = new Map(Object.entries(sources));
    /** Without keys nothing about signatures is looked at [TD-SIG-007]. */
    this.keys = keys.length > 0 ? new Keys(keys, { threshold, verify: verifySignature, digest }) : null;
    /** Names of manifests and shortcuts that count as absent where nobody asked for them [TD-SIG-015]. */
    this.unsigned = new Set();
    /** Names of manifests and shortcuts that a listing had. */
    this.listed = new Set();
    this.id = null;
    /** What the objects that are remembered take. */
    this.resident = 0;
    this.manifests = new Map();
    this.shortcutManifests = new Map();
    this.layouts = new Map();
    this.fingerprintObjects = new Map();
  }

  /** The bytes of an object within its limit and the budget, or null. */
  async read(name, limit) {
    const allowed = Math.min(limit, this.budget.free);
    try {
      const bytes = await this.store.get(name, allowed);
      if (bytes) this.budget.take(bytes.length, name, "the object");
      return bytes;
    } catch (e) {
      if (!(e instanceof TooLong)) throw e;
      return allowed === limit
        ? reject("limit", "TD-LIM-004", name, `more than ${limit} bytes`)
        : reject("limit", "TD-LIM-002", name, `more than the ${allowed} bytes that are left of the budget`);
    }
  }

  /**
   * Reads and parses; what the parsed object takes stays counted, the bytes do not.
   * @param {(value: any) => number} [sizeOf] an estimate, where less is kept than was parsed
   */
  async parsed(name, limit, absent, parse, sizeOf = () => Infinity) {
    const mark = this.budget.mark();
    let values = 0;
    try {
      const bytes = await this.read(name, limit) ?? await this.copy(name, limit);
      if (!bytes) absent();
      const before = this.budget.used + 2 * bytes.length; // the text
      const out = await parse(bytes);
      values = Math.min(sizeOf(out), Math.max(0, this.budget.used - before));
      return out;
    } finally {
      this.budget.back(mark);
      this.remember(values, name);
    }
  }

  /**
   * Reads and parses one of the objects that are signed, or the copy of one that was listed and has gone [TD-RET-017].
   * With keys its signatures come before all else [TD-SIG-001].
   */
  async signable(name, limit, absent, parse) {
    let verified = this.keys === null;
    try {
      return await this.parsed(name, limit, absent, async (bytes) => {
        verified ||= await this.isSigned(name, bytes);
        if (!verified) reject("untrusted", "TD-SIG-012", name, "not signed by enough of the keys");
        return parse(bytes);
      });
    } catch (e) {
      // What cannot be got, or is too long, is not signed either. A small budget proves nothing.
      if (!verified && e instanceof Rejection && e.rule !== "TD-LIM-002") this.unsigned.add(name);
      throw e;
    }
  }

  /** The copy of a listed manifest or shortcut that has gone meanwhile, or null [TD-RET-017]. */
  async copy(name, limit) {
    return this.listed.has(name) ? this.read(retiredName(name), limit) : null;
  }

  async isSigned(name, bytes) {
    const mark = this.budget.mark();
    this.budget.take(bytes.length, name, "what is signed");
    const signed = await this.keys.signed(name, bytes, (object) => this.signature(object));
    this.budget.back(mark);
    return signed;
  }

  /** The signature in an object; null where it counts for nothing. */
  async signature(name) {
    try {
      const bytes = await this.store.get(name, LIMIT.smallObject);
      return bytes && parseSignature(bytes, name, this.budget);
    } catch (e) {
      if (e instanceof TooLong || (e instanceof Rejection && e.rule !== "TD-LIM-002")) return null;
      throw e;
    }
  }

  remember(bytes, name) {
    this.budget.keep(bytes, name, "an object that is remembered");
    this.resident += bytes;
  }

  /** Step 1. @param {string|null} pinned */
  async chain(pinned = null) {
    const chain = await this.signable(CHAIN, LIMIT.smallObject,
      () => reject("missing", "TD-OBJ-009", CHAIN, "there is no chain.json"),
      (bytes) => parseChain(bytes, this.budget));
    if (pinned !== null && chain.chain !== pinned) {
      reject("conflict", "TD-OBJ-010", CHAIN, `the chain is ${chain.chain}, and ${pinned} is pinned`);
    }
    this.id = chain.chain;
    return chain;
  }

  /** What the hint says; null where it is absent, breaks a rule or names another chain [TD-OBJ-018]. */
  async hint() {
    try {
      return await this.parsed(LATEST, LIMIT.smallObject, () => reject("missing", "TD-OBJ-018", LATEST, "there is no hint"),
        (bytes) => parseLatest(bytes, this.id, this.budget));
    } catch (e) {
      if (e instanceof Rejection) return null;
      throw e;
    }
  }

  /** The names under a prefix that mean something. */
  async listing(prefix, meaning) {
    const names = (await this.store.list(prefix)).filter((name) => meaning(name) !== null);
    for (const name of names) this.listed.add(name);
    return names;
  }

  /** @returns {Promise<number[]>} ascending */
  async versions() {
    const names = await this.listing("manifests/", manifestVersion);
    return names.map(manifestVersion).sort((a, b) => a - b);
  }

  /** @returns {Promise<{object: string, version: number, base: number|null}[]>} sorted by name */
  async shortcuts() {
    const names = await this.listing("shortcuts/", shortcutEdge);
    return names.map(shortcutEdge).sort((a, b) => (a.object < b.object ? -1 : 1));
  }

  /** Calls once a key; a rejection is remembered too, any other failure is not. */
  async once(cache, key, make) {
    let known = cache.get(key);
    if (!known) {
      try {
        known = { value: await make() };
      } catch (e) {
        if (!(e instanceof Rejection)) throw e;
        known = { error: e };
      }
      cache.set(key, known);
    }
    return known;
  }

  async value(cache, key, make) {
    const known = await this.once(cache, key, make);
    if (known.error) throw known.error;
    return known.value;
  }

  /** @returns {Promise<{value?: import("./manifest.js").Manifest, error?: Rejection}>} */
  tryManifest(version) {
    const name = manifestName(version);
    return this.once(this.manifests, version, () => this.signable(name, LIMIT.manifest,
      () => reject("missing", "TD-OBJ-008", name, "there is no such version"),
      (bytes) => parseManifest(bytes, name, this.id, { version }, this.budget)));
  }

  async manifest(version) {
    const known = await this.tryManifest(version);
    if (known.error) throw known.error;
    return known.value;
  }

  /** @returns {Promise<{value?: import("./manifest.js").Manifest, error?: Rejection}>} */
  tryShortcut({ object, version, base }) {
    return this.once(this.shortcutManifests, object, () => this.signable(object, LIMIT.manifest,
      () => reject("missing", "TD-ERR-001", object, "there is no such shortcut"),
      (bytes) => parseManifest(bytes, object, this.id, { version, base }, this.budget)));
  }

  async shortcut(name) {
    const known = await this.tryShortcut(name);
    if (known.error) throw known.error;
    return known.value;
  }

  /** Step 5. @returns {Promise<import("./layout.js").Layout>} */
  layout(digest) {
    const name = layoutName(digest);
    return this.value(this.layouts, digest, () => this.parsed(name, LIMIT.layout,
      () => reject("missing", "TD-LAY-009", name, "there is no such layout"),
      async (bytes) => {
        if (await this.digest(bytes) !== digest) reject("integrity", "TD-LAY-008", name, "the digest is another one");
        return parseLayout(bytes, name, digest, this.budget);
      },
      (layout) => layout.tensors.reduce((n, t) => n + 200 + 2 * t.name.length + 8 * t.shape.length, 0)));
  }

  /**
   * A fingerprints object (section 4.12), checked as a whole.
   * @param {import("./manifest.js").Manifest} manifest that names it
   * @param {import("./layout.js").Layout} layout of the manifest
   * @returns {Promise<BigUint64Array>}
   */
  fingerprints(manifest, layout) {
    const digest = manifest.tensorFingerprints;
    const name = fingerprintsName(digest);
    // The sum is the manifest's own, so the manifest is part of the key.
    return this.value(this.fingerprintObjects, manifest.object, async () => {
      const want = 8 * (layout.tensors.length + 1);
      const mark = this.budget.mark();
      this.budget.take(2 * want, name, "a fingerprints object");
      let bytes;
      try {
        // Somewhat more is read, so that bytes added to a sound object are reported as what they are.
        bytes = await this.store.get(name, want + LIMIT.smallObject);
      } catch (e) {
        if (!(e instanceof TooLong)) throw e;
        reject("malformed", "TD-FPR-002", name, `much more than ${want} bytes`);
      }
      if (!bytes) reject("missing", "TD-ERR-001", name, "there is no such fingerprints object");
      if (await this.digest(bytes) !== digest) reject("integrity", "TD-FPR-001", name, "the digest is another one");
      if (bytes.length !== want) reject("malformed", "TD-FPR-002", name, `${bytes.length} bytes, not ${want}`);
      const out = new BigUint64Array(bytes.slice().buffer).subarray(0, -1); // without the salt
      let sum = 0n;
      for (const x of out) sum += x;
      if (BigInt.asUintN(64, sum) !== manifest.fingerprint) {
        reject("integrity", "TD-FPR-003", name, "the sum is not the manifest's fingerprint");
      }
      this.budget.back(mark);
      this.remember(want, name);
      return out;
    });
  }

  /**
   * Step 7: the bytes of a pack, of the right size and digest, from the root, a place of the user, or an allowed source.
   * @param {import("./manifest.js").PackEntry} pack
   * @param {import("./manifest.js").Manifest} manifest
   * @returns {Promise<Uint8Array>}
   */
  async pack(pack, manifest) {
    const { path, sha256, size, sources } = pack;
    const object = path ?? manifest.object;
    this.budget.take(size, object, "the pack");
    let wrong = null;
    let failure = null;
    const attempt = async (get, where) => {
      try {
        const bytes = await get();
        if (!bytes) return null;
        if (bytes.length !== size) wrong ??= `${where} has ${bytes.length} bytes, not ${size}`;
        else if (await this.digest(bytes) !== sha256) wrong ??= `${where} has another SHA-256`;
        else return bytes;
      } catch (e) {
        if (e instanceof TooLong) wrong ??= `${where} has more than ${size} bytes`;
        else failure ??= e;
      }
      return null;
    };
    let bytes = path === null ? null : await attempt(() => this.store.get(path, size), path);
    for (const place of this.places) bytes ??= await attempt(() => place.find(sha256, size), "a place");
    let allowed = false;
    for (const uri of sources) {
      const at = uri.indexOf("://");
      const scheme = at < 0 ? null : uri.slice(0, at);
      if (scheme === null || !this.sources.has(scheme)) continue;
      allowed = true;
      const source = this.sources.get(scheme);
      if (source) bytes ??= await attempt(() => source(uri, size), uri);
    }
    if (bytes) return bytes;
    if (wrong) return reject("integrity", "TD-MAN-013", object, `${pack.where}: ${wrong}`);
    if (failure) throw failure; // a failed get proves no absence [TD-STO-003]
    if (path !== null) return reject("missing", "TD-MAN-014", object, `${pack.where}: there is no such pack`);
    if (!allowed) return reject("untrusted", "TD-MAN-017", object, `${pack.where}: none of its sources has an allowed scheme`);
    return reject("missing", "TD-MAN-018", object, `${pack.where}: no allowed source has the pack`);
  }

  /** A file of a version (section 4.9). @param {import("./manifest.js").FileEntry} file */
  async file(file) {
    let bytes;
    try {
      bytes = await this.store.get(file.path, Math.min(file.size, this.budget.free));
    } catch (e) {
      if (!(e instanceof TooLong)) throw e;
      if (file.size > this.budget.free) reject("limit", "TD-LIM-002", file.path, "the file is larger than the budget");
      reject("integrity", "TD-MAN-022", file.path, `more than ${file.size} bytes`);
    }
    if (!bytes) reject("missing", "TD-ERR-001", file.path, `there is no file ${file.name}`);
    if (bytes.length !== file.size) reject("integrity", "TD-MAN-022", file.path, `${bytes.length} bytes, not ${file.size}`);
    if (await this.digest(bytes) !== file.sha256) reject("integrity", "TD-MAN-022", file.path, "the digest is another one");
    return bytes;
  }
}
