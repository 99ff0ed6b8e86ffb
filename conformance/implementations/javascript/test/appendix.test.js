import { test } from "node:test";
import assert from "node:assert/strict";
import { MemoryStore, Reader, State, verify } from "../src/index.js";
import { Budget } from "../src/budget.js";
import { parseChain, parseLatest } from "../src/chain.js";
import { parseLayout, Layout, entryOf } from "../src/layout.js";
import { parseManifest, checkFeatures, FEATURES } from "../src/manifest.js";
import { parseChunkTable } from "../src/chunktable.js";
import { parseJson } from "../src/json.js";
import { appendix, examples, packsOf } from "./spec.js";
import { wordBytes } from "./writer.js";

const sparse = (n, words) => Array.from({ length: n }, (_, i) => BigInt(words[i] ?? 0));
const big = (list) => list.map(BigInt);
const LORA = { dtype: "BF16", shape: [20, 16] };
const STATES = [
  {
    "head.bias": { dtype: "F32", shape: [5], words: big([0x3dcccccd, 0xbe4ccccd, 0, 0x3f000000, 0xbf800000]) },
    "lora_B.weight": { ...LORA, words: sparse(320, {}) },
    "norm.weight": { dtype: "BF16", shape: [4], words: big([0x3f80, 0x3f80, 0x3f7f, 0x3f80]) },
  },
  {
    "head.bias": { dtype: "F32", shape: [5], words: big([0x3dcccccd, 0xbe4cccce, 0, 0x3f000000, 0xbf7ffffe]) },
    "lora_B.weight": { ...LORA, words: sparse(320, { 3: 0xb8d1, 290: 0x3a02 }) },
    "norm.weight": { dtype: "BF16", shape: [4], words: big([0x3f81, 0x3f80, 0x3f7e, 0x3f7e]) },
    scale: { dtype: "F32", shape: [], words: big([0x3f800000]) },
  },
  {
    "gate.weight": { dtype: "F8_E4M3", shape: [2, 3], words: big([0x38, 0xb8, 0, 0x30, 0xc4, 0x7f]) },
    "head.bias": { dtype: "F32", shape: [5, 1], words: big([0x3dcccccd, 0xbe4cccce, 0, 0, 0xbf7ffffd]) },
    "lora_B.weight": { ...LORA, words: sparse(320, { 3: 0xb8d0, 17: 0x8000, 290: 0x3a04, 300: 1, 309: 0xffff }) },
    "norm.weight": { dtype: "BF16", shape: [4], words: big([0x3f81, 0x3f80, 0x3f7f, 0x3f7c]) },
  },
];
const NAT = "shortcuts/000000000002-000000000001.nat.json";
const FULL = "shortcuts/000000000002-full.json";
const MANIFESTS = [0, 1, 2].map((v) => `manifests/00000000000${v}.json`);

function expectState(state, want) {
  assert.deepEqual([...state.tensors.keys()], Object.keys(want));
  for (const [name, tensor] of Object.entries(want)) {
    const { entry, bytes } = state.tensors.get(name);
    assert.equal(entry.dtype.name, tensor.dtype);
    assert.deepEqual(entry.shape, tensor.shape);
    assert.deepEqual(Buffer.from(bytes), Buffer.from(wordBytes(tensor)), name);
  }
}
const holding = (v, version = v) => State.of(Object.entries(STATES[v]).map(([name, t]) =>
  ({ entry: entryOf(name, t.dtype, t.shape, "", ""), bytes: wordBytes(t) })), version);

test("the chain is sound", async () => {
  assert.deepEqual(await verify(new MemoryStore(appendix())), []);
});

test("every version from nothing", async () => {
  for (const v of [0, 1, 2]) {
    const reader = new Reader(new MemoryStore(appendix()));
    const { route } = await reader.read(v);
    expectState(reader.held, STATES[v]);
    assert.deepEqual(route, [[MANIFESTS[0]], MANIFESTS.slice(0, 2), [FULL]][v]);
  }
});

test("the routes of A.7", async () => {
  const cases = [
    { held: null, route: [FULL] },
    { held: 0, route: [FULL] },
    { held: 1, route: [MANIFESTS[2]] },
    { held: 1, features: [], route: [NAT] },
    { held: 1, gone: [packsOf(MANIFESTS[2])[0]], route: [NAT] },
    { held: 1, gone: [packsOf(MANIFESTS[2])[1]], route: [FULL] },
    { held: 0, gone: packsOf(FULL), route: [MANIFESTS[1], MANIFESTS[2]] },
    { held: null, gone: packsOf(FULL), route: MANIFESTS },
  ];
  for (const { held, gone = [], features, route } of cases) {
    const objects = appendix();
    for (const name of gone) objects.delete(name);
    const reader = new Reader(new MemoryStore(objects), { held: held === null ? null : holding(held), features });
    assert.deepEqual((await reader.read()).route, route);
    expectState(reader.held, STATES[2]);
  }
});

test("a state under a wrong version or none still is the base it is", async () => {
  for (const version of [null, 0, 77]) {
    const objects = appendix();
    objects.delete(FULL);
    const reader = new Reader(new MemoryStore(objects), { held: holding(1, version) });
    await reader.read(2);
    expectState(reader.held, STATES[2]);
  }
});

test("some tensors only", async () => {
  for (const tensors of [["norm.weight", "scale"], ["gate.weight", "head.bias"], ["lora_B.weight", "norm.weight"]]) {
    const objects = appendix();
    objects.delete(FULL);
    const reader = new Reader(new MemoryStore(objects), { tensors });
    for (const v of [0, 1, 2]) {
      await reader.read(v);
      expectState(reader.held, Object.fromEntries(Object.entries(STATES[v]).filter(([name]) => tensors.includes(name))));
    }
  }
});

test("a part that lacks a tensor of an exponent chunk takes the other edge, or says unsupported", async () => {
  const objects = appendix();
  objects.delete(FULL);
  const reader = new Reader(new MemoryStore(objects), { tensors: ["norm.weight"] });
  assert.deepEqual((await reader.read(2)).route, [MANIFESTS[0], MANIFESTS[1], NAT]);
  objects.delete(NAT);
  await assert.rejects(new Reader(new MemoryStore(objects), { tensors: ["norm.weight"] }).read(2),
    { error: "unsupported", rule: "TD-RDR-017" });
});

test("prepare, apply, undo", async () => {
  const reader = new Reader(new MemoryStore(appendix()), { held: holding(1) });
  const update = await reader.prepare(2);
  expectState(reader.held, STATES[1]);
  reader.apply(update);
  expectState(reader.held, STATES[2]);
  reader.undo(update);
  expectState(reader.held, STATES[1]);
  const other = new Reader(new MemoryStore(appendix()), { held: holding(0) });
  assert.throws(() => other.apply(update), { error: "wrong-base" });
  expectState(other.held, STATES[0]);
});

test("one bit of any object but the hint is noticed, and nothing held changes", async () => {
  const sound = appendix();
  for (const name of sound.keys()) {
    if (name === "latest.json") continue;
    const objects = appendix();
    const bytes = objects.get(name).slice();
    bytes[Math.floor(bytes.length / 2)] ^= 4;
    objects.set(name, bytes);
    const faults = await verify(new MemoryStore(objects));
    // A bit may fall on a character that means nothing, such as one of a time or an annotation.
    if (/^(layouts|packs|files|fingerprints)/.test(name)) {
      assert.deepEqual(faults.filter((f) => f.object === name).map((f) => f.error), ["integrity"], name);
    }
    const reader = new Reader(new MemoryStore(objects), { held: holding(0) });
    try {
      await reader.read(2);
      expectState(reader.held, STATES[2]);
    } catch (e) {
      assert.ok(e.error, e);
      expectState(reader.held, STATES[0]);
    }
  }
});

test("the memory budget is heeded", async () => {
  await assert.rejects(new Reader(new MemoryStore(appendix()), { memory: 3000 }).read(0), { error: "limit" });
  await new Reader(new MemoryStore(appendix()), { memory: 100000 }).read(0);
});

test("the examples of the document", () => {
  const chain = "5f0c8a52-3a1e-4b7d-9c64-0d2f6b1e7a90";
  const entry = (dtype, words) => entryOf("t", dtype, [words], "", "");
  // A layout large enough for the chunk tables of section 6.3; those of the appendix are read with their packs.
  const tensors = Array.from({ length: 15 }, () => entry("BF16", 589824));
  tensors[14] = entry("F32", 768);
  let count = 0;
  for (const { kind, valid, error, text } of examples()) {
    const bytes = new Uint8Array(Buffer.from(text));
    const check = {
      chain: () => parseChain(bytes),
      latest: () => parseLatest(bytes, chain),
      layout: () => parseLayout(bytes, "layout", "0".repeat(64)),
      manifest: () => {
        const { version } = JSON.parse(text);
        checkFeatures(parseManifest(bytes, "manifest", chain, { version }, new Budget(1e9)), FEATURES);
      },
      shortcut: () => {
        const { version, base } = JSON.parse(text);
        checkFeatures(parseManifest(bytes, "shortcut", chain, { version, base: base && base.version }), FEATURES);
      },
      "chunk-table": () => {
        const { layout } = JSON.parse(text);
        if (/^1+$/.test(layout)) parseChunkTable(text, new Layout(tensors, layout), "table");
      },
      signature: valid ? () => parseJson(bytes, "signature") : null,
    }[kind];
    if (!check) continue; // signatures are not built
    if (valid) check();
    else assert.throws(check, { error }, text);
    count++;
  }
  assert.ok(count > 30, `${count} examples`);
});
