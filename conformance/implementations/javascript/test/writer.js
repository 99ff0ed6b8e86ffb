/**
 * A plain encoder, for tests only: chains of our own to read back. It knows nothing of the modules that decode, except
 * for dtypes and digests, and works on bigints throughout.
 */
import { createHash } from "node:crypto";
import { DTYPES } from "../src/dtypes.js";
import { xxh64Low } from "../src/xxh64.js";

export const CHAIN_ID = "0b5d2a6e-7c1f-4e0a-9a3b-2f4c6d8e0f12";
const TIME = "2026-11-20T12:00:00Z";
const M64 = (1n << 64n) - 1n;
export const sha = (bytes) => createHash("sha256").update(bytes).digest("hex");
export const hex = (x) => (x & M64).toString(16).padStart(16, "0");
export const utf8 = (text) => new Uint8Array(Buffer.from(text, "utf8"));
const json = (value) => utf8(JSON.stringify(value));

export function mix(z) {
  z = (z + 0x9e3779b97f4a7c15n) & M64;
  z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & M64;
  z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & M64;
  return z ^ (z >> 31n);
}

const seeds = new Map();
export function coefficient(name, i) {
  if (!seeds.has(name)) seeds.set(name, createHash("sha256").update(name, "utf8").digest().readBigUInt64LE(0));
  return ((mix((seeds.get(name) + (BigInt(i) >> 16n)) & M64) | 1n) * (mix(BigInt(i) & 65535n) | 1n)) & M64;
}

/** value of section 8.3. */
export function value(name, j, x, w) {
  if (w === 8) return (x * coefficient(name, j)) & M64;
  let f = 0n;
  for (let q = 0; q < w / 16; q++) f += ((x >> BigInt(16 * q)) & 65535n) * coefficient(name, j * (w / 16) + q);
  return f & M64;
}

/** A tensor of a test: {dtype, shape, words: bigint[]}. A state: an object of tensors by name. */
export function fingerprint(name, { dtype, words }) {
  const { w } = DTYPES.get(dtype);
  return words.reduce((f, x, j) => f + (x ? value(name, j, x, w) : 0n), 0n) & M64;
}
export const stateFingerprint = (state) =>
  Object.entries(state).reduce((f, [name, t]) => f + fingerprint(name, t), 0n) & M64;

const bytewise = (a, b) => Buffer.compare(Buffer.from(a, "utf8"), Buffer.from(b, "utf8"));
export const names = (state) => Object.keys(state).sort(bytewise);

export function wordBytes({ dtype, words }) {
  const { w } = DTYPES.get(dtype);
  const out = new Uint8Array(words.length * w / 8);
  words.forEach((x, j) => {
    for (let b = 0; b < w / 8; b++) out[j * (w / 8) + b] = Number((x >> BigInt(8 * b)) & 255n);
  });
  return out;
}

/** A frame of raw and RLE blocks: legal, and no compressor is needed. */
export function frame(bytes, { checksum = true, single = true } = {}) {
  const out = [0x28, 0xb5, 0x2f, 0xfd, 0x80 | (single ? 0x20 : 0) | (checksum ? 4 : 0)];
  if (!single) out.push(7 << 3); // a window of 128 KiB
  for (let b = 0; b < 4; b++) out.push((bytes.length >>> (8 * b)) & 255);
  const most = Math.min(131072, single ? bytes.length : 131072);
  for (let at = 0; at < bytes.length; ) {
    const size = Math.min(most, bytes.length - at);
    const part = bytes.subarray(at, at + size);
    const rle = part.every((x) => x === part[0]);
    at += size;
    const head = (size << 3) | (rle ? 2 : 0) | (at === bytes.length ? 1 : 0);
    out.push(head & 255, (head >> 8) & 255, head >> 16);
    for (const x of rle ? [part[0]] : part) out.push(x);
  }
  if (checksum) {
    const sum = xxh64Low(bytes);
    for (let b = 0; b < 4; b++) out.push((sum >>> (8 * b)) & 255);
  }
  return Uint8Array.from(out);
}

/** The streams of a chunk. @param {{n: number, listed: {position: number, base: bigint, now: bigint}[]}} */
export function encode({ n, listed, positions, shift = 0, values, w }) {
  const streams = {};
  const m = listed.length;
  if (positions === "bitmap") {
    streams.bitmap = new Uint8Array(Math.ceil(n / 8));
    for (const { position } of listed) streams.bitmap[position >> 3] |= 1 << (position & 7);
  }
  if (positions === "gap") {
    const gaps = [];
    const lows = [];
    let before = -1;
    for (const { position } of listed) {
      const g = position - before - 1;
      before = position;
      const h = g >> shift;
      for (let i = 0; i < Math.floor(h / 255); i++) gaps.push(255);
      gaps.push(h % 255);
      lows.push(g & (2 ** shift - 1));
    }
    streams.gaps = Uint8Array.from(gaps);
    if (shift === 8) streams.low = Uint8Array.from(lows);
    if (shift === 4) {
      streams.low = Uint8Array.from({ length: Math.ceil(m / 2) }, (_, j) => lows[2 * j] | ((lows[2 * j + 1] ?? 0) << 4));
    }
  }
  const plane = (words, j) => Uint8Array.from(words, (x) => Number((x >> BigInt(8 * j)) & 255n));
  if (values === "replace") {
    for (let j = 0; j < w / 8; j++) streams[`values.${j}`] = plane(listed.map((l) => l.now), j);
    return streams;
  }
  const size = 1n << BigInt(w);
  const codes = new Uint8Array(Math.ceil(m / 4));
  const escapes = [];
  listed.forEach(({ base, now }, k) => {
    const d = (now - base + size) % size;
    const z = d < size / 2n ? 2n * d : 2n * (size - d) - 1n;
    const y = z - 1n;
    const code = y < 3n ? y : 3n;
    codes[k >> 2] |= Number(code) << (2 * (k & 3));
    if (code === 3n) escapes.push(y - 3n);
  });
  streams.codes = codes;
  if (escapes.length > 0) for (let j = 0; j < w / 8; j++) streams[`escapes.${j}`] = plane(escapes, j);
  return streams;
}

/** A safetensors file of named byte strings. */
export function safetensors(entries, metadata, pad = 0) {
  const header = {};
  if (metadata) header.__metadata__ = metadata;
  let at = 0;
  for (const { name, dtype, shape, bytes } of entries) {
    header[name] = { dtype, shape, data_offsets: [at, at + bytes.length] };
    at += bytes.length;
  }
  const head = Buffer.from(JSON.stringify(header) + " ".repeat(pad), "utf8");
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(head.length));
  return new Uint8Array(Buffer.concat([length, head, ...entries.map((e) => e.bytes)]));
}

export class Chain {
  constructor() {
    this.objects = new Map();
    this.states = new Map();
    this.manifests = new Map();
    this.objects.set("chain.json", json({ tensordelta: "1.0-rc.1", chain: CHAIN_ID, created: TIME }));
  }

  layout(state) {
    const bytes = json({ tensordelta: "1.0-rc.1", tensors: names(state).map((name) => ({ name, dtype: state[name].dtype, shape: state[name].shape })) });
    this.objects.set(`layouts/${sha(bytes)}.json`, bytes);
    return sha(bytes);
  }

  fingerprints(state) {
    const bytes = Buffer.alloc(8 * (names(state).length + 1), 0xff); // the salt is whatever it is
    names(state).forEach((name, i) => bytes.writeBigUInt64LE(fingerprint(name, state[name]), 8 * i));
    this.objects.set(`fingerprints/${sha(bytes)}.bin`, new Uint8Array(bytes));
    return sha(bytes);
  }

  put(bytes) {
    const path = `packs/${sha(bytes)}-${sha(bytes).slice(0, 16)}.safetensors`;
    this.objects.set(path, bytes);
    return { sha256: sha(bytes), size: bytes.length, path };
  }

  fitted(base, state) {
    const out = {};
    for (const name of names(state)) {
      const { dtype, shape, words } = state[name];
      const old = base[name];
      const same = old && old.dtype === dtype && JSON.stringify(old.shape) === JSON.stringify(shape);
      out[name] = { dtype, shape, words: same ? old.words : words.map(() => 0n) };
    }
    return out;
  }

  /**
   * A chunk over slices of [name, start, stop].
   * @param {{order?, limit?, positions?, shift?, values?, compression?, also?: number}} how
   */
  chunk(slices, fitted, state, how) {
    const { order = "natural", limit, positions = "gap", shift = 0, values = "step", compression = "none" } = how;
    const dtype = DTYPES.get(state[slices[0][0]].dtype);
    const index = (name) => names(state).indexOf(name);
    const words = [];
    for (const [name, start, stop] of slices) {
      for (let j = start; j < stop; j++) words.push({ name, j, base: fitted[name].words[j], now: state[name].words[j] });
    }
    let permutation = words.map((_, i) => i);
    if (order === "exponent") {
      const mask = (1n << BigInt(dtype.exponentBits)) - 1n;
      const key = (i) => Number((words[i].base >> BigInt(dtype.shift)) & mask);
      const first = permutation.filter((i) => key(i) < limit).sort((a, b) => key(a) - key(b) || a - b);
      permutation = [...first, ...permutation.filter((i) => key(i) >= limit)];
    }
    const listed = permutation.map((i, position) => ({ ...words[i], position }))
      .filter((l) => positions === "all" || l.base !== l.now || (how.also && l.position % how.also === 0));
    if (listed.length === 0) return null;
    const sum = listed.reduce((f, l) => f + value(l.name, l.j, l.now, dtype.w), 0n);
    return {
      entry: {
        dtype: dtype.name, slices: slices.map(([name, start, stop]) => [index(name), start, stop]), changed: listed.length,
        order: order === "exponent" ? { codec: order, limit } : { codec: order },
        positions: positions === "gap" ? { codec: positions, shift } : { codec: positions },
        values: { codec: values }, compression, result: hex(sum),
      },
      streams: encode({ n: words.length, listed, positions, shift, values, w: dtype.w }),
    };
  }

  chunkPack(chunks, state, edit = (table) => table) {
    const table = edit({ tensordelta: "1.0-rc.1", layout: this.layout(state), chunks: chunks.map((c) => c.entry) });
    const entries = chunks.flatMap(({ entry, streams }, i) => Object.entries(streams).map(([name, bytes]) => {
      const stored = entry.compression === "zstd" ? frame(bytes) : bytes;
      return { name: `${i}.${name}`, dtype: "U8", shape: [stored.length], bytes: stored };
    }));
    const indices = chunks.flatMap((c) => c.entry.slices.map((s) => s[0]));
    return {
      ...this.put(safetensors(entries, { tensordelta: JSON.stringify(table) }, 3)), content: "chunks",
      tensors: [[Math.min(...indices), Math.max(...indices) + 1]], changed: chunks.reduce((n, c) => n + c.entry.changed, 0),
    };
  }

  plainPack(held, state) {
    const bytes = safetensors(held.map((name) => ({ name, dtype: state[name].dtype, shape: state[name].shape, bytes: wordBytes(state[name]) })));
    const indices = held.map((name) => names(state).indexOf(name));
    return {
      ...this.put(bytes), content: "tensors", tensors: [[Math.min(...indices), Math.max(...indices) + 1]],
      changed: held.reduce((n, name) => n + state[name].words.length, 0),
    };
  }

  /** Creates a manifest, or a shortcut for a `name`. */
  publish(version, state, base, packs, { name, edit = (m) => m, features = [], prints = true } = {}) {
    const from = base === null ? null : this.manifests.get(base);
    const manifest = edit({
      tensordelta: "1.0-rc.1", chain: CHAIN_ID, version, layout: this.layout(state), fingerprint: hex(stateFingerprint(state)),
      base: from && { version: base, layout: from.layout, fingerprint: from.fingerprint }, packs, features, created: TIME,
      ...(prints ? { tensor_fingerprints: this.fingerprints(state) } : {}),
    });
    const bytes = json(manifest);
    this.objects.set(name ?? `manifests/${String(version).padStart(12, "0")}.json`, bytes);
    if (!name) {
      this.manifests.set(version, manifest);
      this.states.set(version, state);
    }
    return manifest;
  }
}

/** A generator of numbers that is the same everywhere. */
export function random(seed) {
  let s = BigInt(seed);
  return (below) => {
    s = (s + 1n) & M64;
    return Number(mix(s) % BigInt(below));
  };
}
