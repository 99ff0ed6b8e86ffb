import { test } from "node:test";
import assert from "node:assert/strict";
import { MemoryStore, Reader, verify } from "../src/index.js";
import { DTYPES } from "../src/dtypes.js";
import { Chain, hex, names, random, wordBytes, CHAIN_ID, safetensors } from "./writer.js";

const expect = (state, want) => {
  assert.deepEqual([...state.tensors.keys()], names(want));
  for (const [name, tensor] of Object.entries(want)) {
    assert.equal(Buffer.compare(state.tensors.get(name).bytes, wordBytes(tensor)), 0, name);
  }
};
const readAll = async (chain, version, options) => {
  const reader = new Reader(new MemoryStore(chain.objects), options);
  await reader.read(version);
  return reader.held;
};

function words(next, n, w) {
  return Array.from({ length: n }, () => (next(4) ? (BigInt(next(2 ** 32)) << 32n | BigInt(next(2 ** 32))) >> BigInt(64 - w) : 0n));
}
function mutate(next, tensor, share) {
  const { w } = DTYPES.get(tensor.dtype);
  return {
    ...tensor,
    words: tensor.words.map((x) => {
      if (next(share)) return x;
      return BigInt.asUintN(w, next(3) ? x + BigInt(next(9) - 4) : BigInt(next(2 ** 31)) * 77777777777n);
    }),
  };
}

/** Every dtype with every legal combination; three tensors of a dtype, cut into odd slices. */
test("every dtype and combination comes back", async () => {
  const next = random(5);
  const chain = new Chain();
  let state = {};
  for (const { name, bits } of DTYPES.values()) {
    for (const k of [0, 1, 2]) {
      const n = [20, 90, 5][k];
      const { w } = DTYPES.get(name);
      state[`${name}.${k}`] = { dtype: name, shape: [n * 4], words: words(next, n * 4 * bits / w, w) };
    }
  }
  chain.publish(0, state, null, [chain.plainPack(names(state), state)]);
  let version = 0;
  const natural = [];
  for (const positions of [{ positions: "gap", shift: 0 }, { positions: "gap", shift: 4 }, { positions: "gap", shift: 8 }, { positions: "bitmap" }, { positions: "all" }]) {
    for (const values of ["step", "replace"]) natural.push({ ...positions, values, also: 7 });
  }
  const exponent = natural.filter((h) => h.positions !== "all" && h.values === "step").map((h) => ({ ...h, order: "exponent" }));
  for (const how of [...natural, ...exponent]) {
    for (const compression of ["none", "zstd"]) {
      const before = state;
      const fits = (name) => how.order !== "exponent" || DTYPES.get(state[name].dtype).exponentBits > 0;
      state = Object.fromEntries(Object.entries(state).map(([name, t]) => [name, fits(name) ? mutate(next, t, 1 + next(12)) : t]));
      if (how.positions === "all" && how.values === "step") {
        // Every word has to change for this one.
        for (const [name, t] of Object.entries(state)) {
          const { w } = DTYPES.get(t.dtype);
          state[name] = { ...t, words: t.words.map((x, j) => (x === before[name].words[j] ? BigInt.asUintN(w, x + 1n) : x)) };
        }
      }
      const chunks = [];
      for (const { name, exponentBits } of DTYPES.values()) {
        const [a, b, c] = [0, 1, 2].map((k) => `${name}.${k}`);
        if (!fits(a)) continue;
        const limit = how.order === "exponent" ? 1 + next(2 ** exponentBits) : undefined;
        const cut = 1 + next(state[b].words.length - 2);
        const also = how.values === "replace" ? how.also : undefined;
        const one = { ...how, compression, limit, also };
        chunks.push(chain.chunk([[a, 0, state[a].words.length], [b, 0, cut]], before, state, one));
        chunks.push(chain.chunk([[b, cut, cut + 1], [b, cut + 1, state[b].words.length], [c, 0, state[c].words.length]], before, state, one));
      }
      version++;
      chain.publish(version, state, version - 1, [chain.chunkPack(chunks.filter((x) => x), state)],
        { features: how.order ? ["exponent-order"] : ["exponent-order"].slice(1) });
    }
  }
  const reader = new Reader(new MemoryStore(chain.objects));
  for (let v = 0; v <= version; v++) {
    await reader.read(v);
    expect(reader.held, chain.states.get(v));
  }
  const tensors = [...DTYPES.keys()].slice(0, 9).flatMap((name) => [0, 1, 2].map((k) => `${name}.${k}`));
  expect(await readAll(chain, version, { tensors }), Object.fromEntries(tensors.map((name) => [name, state[name]])));
  assert.deepEqual(await verify(new MemoryStore(chain.objects)), []);
});

/** A chain of three versions whose parts the tests below break. */
function small() {
  const chain = new Chain();
  const tensor = (dtype, list) => ({ dtype, shape: [list.length], words: list.map(BigInt) });
  const states = [
    { a: tensor("BF16", [1, 2, 3, 4, 5, 6]), b: tensor("F32", [7, 8]), n: tensor("U8", []) },
    { a: tensor("BF16", [1, 2, 9, 4, 5, 7]), b: tensor("F32", [7, 8]), n: tensor("U8", []) },
    { a: tensor("BF16", [1, 2, 9, 4, 5, 7]), b: tensor("F32", [7, 80000]), z: tensor("I64", [0, -1n & 0xffffffffffffffffn]) },
  ];
  const zero = chain.fitted({}, states[0]);
  const full = (s) => ["a", "b"].map((t) => chain.chunk([[t, 0, s[t].words.length]], chain.fitted({}, s), s, { positions: "all", values: "replace" }));
  chain.publish(0, states[0], null, [chain.chunkPack(full(states[0]), states[0])]);
  const delta = () => chain.chunk([["a", 0, 6]], states[0], states[1], { compression: "zstd" });
  chain.publish(1, states[1], 0, [chain.chunkPack([delta()], states[1])]);
  const fitted = chain.fitted(states[1], states[2]);
  chain.publish(2, states[2], 1, [chain.chunkPack([chain.chunk([["b", 0, 2]], fitted, states[2], { positions: "bitmap" }),
    chain.chunk([["z", 1, 2]], fitted, states[2], {})], states[2])]);
  return { chain, states, zero, full, delta };
}
const PACK = (chain, version, i = 0) => chain.manifests.get(version).packs[i].path;

test("fitting drops, adds and keeps", async () => {
  const { chain, states } = small();
  for (const v of [0, 1, 2]) expect(await readAll(chain, v), states[v]);
  assert.deepEqual(await verify(new MemoryStore(chain.objects)), []);
});

test("an unchanged version, a gap in the numbers, a route to where one is", async () => {
  const { chain, states } = small();
  chain.publish(10, states[2], 2, []);
  const reader = new Reader(new MemoryStore(chain.objects));
  assert.deepEqual((await reader.read()).route.at(-1), "manifests/000000000010.json");
  expect(reader.held, states[2]);
  assert.deepEqual((await reader.read(2)).route, []);
  assert.equal(reader.held.version, 2);
});

test("the answers of section 10", async () => {
  const cases = [];
  const add = (change, version, answer, object) => cases.push({ change, version, answer, object });
  const gone = ({ chain }) => chain.objects.delete(PACK(chain, 1));
  const fullTo2 = ({ chain, states, full }) => chain.publish(2, states[2], null,
    [chain.chunkPack([...full(states[2]), chain.chunk([["z", 1, 2]], chain.fitted({}, states[2]), states[2], {})], states[2])],
    { name: "shortcuts/000000000002-full.json" });
  add(gone, 2, "missing");
  add((x) => { gone(x); fullTo2(x); }, 2, null);
  add(({ chain, states, delta }) => chain.publish(1, states[1], 0, [chain.chunkPack([delta()], states[1])], { features: ["strided-slices"] }), 1, "unsupported");
  add(({ chain, states, delta }) => chain.publish(1, states[1], 0, [chain.chunkPack([delta()], states[1])],
    { edit: (m) => ({ ...m, base: { ...m.base, fingerprint: "0123456789abcdef" } }) }), 1, "wrong-base");
  const garbage = ({ chain }) => chain.objects.set("manifests/000000000001.json", Uint8Array.of(1, 2, 3));
  add(garbage, 1, "malformed");
  add(garbage, 2, "malformed", "manifests/000000000001.json");
  add(({ chain, states, full }) => {
    chain.publish(1, states[1], null, [chain.chunkPack(full(states[1]), states[1])],
      { name: "shortcuts/000000000001-full.json", edit: (m) => ({ ...m, fingerprint: hex(1n) }) });
    const bytes = chain.objects.get(PACK(chain, 1)).slice();
    bytes[bytes.length - 1] ^= 1;
    chain.objects.set(PACK(chain, 1), bytes);
  }, 1, "integrity");
  add(({ chain }) => chain.objects.delete("manifests/000000000000.json"), 2, "missing");
  add(({ chain }) => chain.objects.delete("manifests/000000000002.json"), 2, "missing");
  add(({ chain }) => chain.objects.delete("chain.json"), 2, "missing");
  add(() => {}, -1, "missing");
  add(() => {}, 1.5, "missing");
  add(({ chain }) => chain.objects.set("latest.json", Uint8Array.of(0)), null, null);
  for (const { change, version, answer, object } of cases) {
    const made = small();
    change(made);
    if (answer === null) expect(await readAll(made.chain, version), made.states[version ?? 2]);
    else await assert.rejects(readAll(made.chain, version), { error: answer, ...(object && { object }) });
  }
});

test("a shortcut for a reader that does not know the manifest's feature", async () => {
  const { chain, states, delta } = small();
  chain.publish(1, states[1], 0, [chain.chunkPack([delta()], states[1])], { features: ["strided-slices"] });
  chain.publish(1, states[1], 0, [chain.chunkPack([delta()], states[1])], { name: "shortcuts/000000000001-000000000000.x.json" });
  expect(await readAll(chain, 2), states[2]);
});

test("a version that is held and whose manifest has gone is still a base", async () => {
  const { chain, states } = small();
  const reader = new Reader(new MemoryStore(chain.objects));
  await reader.read(1);
  for (const v of [0, 1]) chain.objects.delete(`manifests/00000000000${v}.json`);
  await reader.read(2);
  expect(reader.held, states[2]);
  await assert.rejects(readAll(chain, 2), { error: "missing" });
});

test("faults of manifests", async () => {
  const entry = (chain) => chain.manifests.get(1).packs[0];
  const cases = [
    ["malformed", "TD-MAN-030", (m, p) => ({ ...m, packs: [{ ...p, tensors: [[1, 2]] }] })],
    ["malformed", "TD-MAN-001", (m, p) => ({ ...m, packs: [{ ...p, tensors: [[0, 9]] }] })],
    ["malformed", "TD-MAN-011", (m, p) => ({ ...m, packs: [{ ...p, changed: 3 }] })],
    ["malformed", "TD-MAN-009", (m, p) => ({ ...m, packs: [{ ...p, path: null }] })],
    ["malformed", "TD-MAN-019", (m, p) => ({ ...m, packs: [p, p] })],
    ["malformed", "TD-PTH-003", (m, p) => ({ ...m, packs: [{ ...p, path: "pack/x" }] })],
    ["malformed", "TD-PTH-001", (m, p) => ({ ...m, packs: [{ ...p, path: "packs/../x" }] })],
    ["malformed", "TD-PTH-002", (m, p) => ({ ...m, packs: [{ ...p, path: `packs/${"x".repeat(195)}` }] })],
    ["unsupported", "TD-MAN-012", (m, p) => ({ ...m, packs: [{ ...p, content: "words" }] })],
    ["integrity", "TD-MAN-013", (m, p) => ({ ...m, packs: [{ ...p, size: p.size + 1 }] })],
    ["integrity", "TD-MAN-013", (m, p) => ({ ...m, packs: [{ ...p, sha256: "0".repeat(64) }] })],
    ["limit", "TD-LIM-004", (m, p) => ({ ...m, packs: [{ ...p, size: 2 ** 40 + 1 }] })],
    ["missing", "TD-MAN-014", (m, p) => ({ ...m, packs: [{ ...p, path: "packs/elsewhere" }] })],
    ["untrusted", "TD-MAN-017", (m, p) => ({ ...m, packs: [{ ...p, path: null, sources: ["file:///x"] }] })],
    ["integrity", "TD-RDR-007", (m) => ({ ...m, packs: [] })],
    ["conflict", "TD-OBJ-011", (m) => ({ ...m, chain: CHAIN_ID.replace("0b", "0c") })],
    ["malformed", "TD-OBJ-004", (m) => ({ ...m, version: 3 })],
    ["malformed", "TD-MAN-002", ({ base, ...m }) => m],
    ["malformed", "TD-JSN-011", ({ features, ...m }) => m],
    ["malformed", "TD-JSN-012", (m) => ({ ...m, annotations: null })],
    ["limit", "TD-LIM-001", (m) => ({ ...m, annotations: { é: "x".repeat(4095) } })],
    ["limit", "TD-LIM-004", (m) => ({ ...m, annotations: Object.fromEntries(Array.from({ length: 65 }, (_, i) => [i, ""])) })],
    ["malformed", "TD-MAN-020", (m) => ({ ...m, files: ["x", "x"].map((name) => ({ name, size: 0, sha256: "0".repeat(64), path: "files/0" })) })],
    ["malformed", "TD-MAN-021", (m) => ({ ...m, files: ["x", "x/y"].map((name) => ({ name, size: 0, sha256: "0".repeat(64), path: "files/0" })) })],
    ["unsupported", "TD-VER-002", (m) => ({ tensordelta: "2.0" })],
    ["missing", "TD-LAY-009", (m) => ({ ...m, layout: "0".repeat(64) })],
  ];
  for (const [error, rule, edit] of cases) {
    const { chain, states } = small();
    chain.publish(1, states[1], 0, [], { edit: (m) => edit(m, entry(chain)) });
    await assert.rejects(readAll(chain, 1), { error, rule }, rule);
    assert.ok((await verify(new MemoryStore(chain.objects))).some((f) => f.error === error), `${rule} verified`);
  }
});

test("faults of chunk tables", async () => {
  const one = (edit) => (t) => ({ ...t, chunks: t.chunks.map(edit) });
  const cases = [
    ["malformed", "TD-CHK-001", (t) => ({ ...t, chunks: [] })],
    ["malformed", "TD-CHK-003", (t) => ({ ...t, layout: "0".repeat(64) })],
    ["unsupported", "TD-VER-002", (t) => ({ ...t, tensordelta: "2.0" })],
    ["malformed", "TD-CHK-008", one((c) => ({ ...c, slices: [[0, 0, 7]] }))],
    ["malformed", "TD-CHK-008", one((c) => ({ ...c, slices: [[9, 0, 6]] }))],
    ["malformed", "TD-CHK-007", one((c) => ({ ...c, slices: [[0, 3, 3]] }))],
    ["malformed", "TD-CHK-005", one((c) => ({ ...c, slices: [[0, 0, 4], [0, 3, 6]] }))],
    ["malformed", "TD-CHK-004", one((c) => ({ ...c, slices: [[0, 3, 6], [0, 0, 3]] }))],
    ["malformed", "TD-CHK-009", one((c) => ({ ...c, slices: [[1, 0, 2]] }))],
    ["unsupported", "TD-CHK-010", one((c) => ({ ...c, dtype: "F128" }))],
    ["malformed", "TD-CHK-011", one((c) => ({ ...c, changed: 0 }))],
    ["malformed", "TD-CHK-011", one((c) => ({ ...c, changed: 7 }))],
    ["unsupported", "TD-CHK-012", one((c) => ({ ...c, order: { codec: "gap" } }))],
    ["malformed", "TD-CHK-013", one((c) => ({ ...c, positions: { codec: "gap" } }))],
    ["malformed", "TD-CHK-013", one((c) => ({ ...c, positions: { codec: "gap", shift: 5 } }))],
    ["malformed", "TD-CHK-014", one((c) => ({ ...c, values: { codec: "step", x: 1 } }))],
    ["unsupported", "TD-CHK-015", one((c) => ({ ...c, compression: "lz4" }))],
    ["malformed", "TD-POS-011", one((c) => ({ ...c, positions: { codec: "all" } }))],
    ["malformed", "TD-PCK-013", one((c) => ({ ...c, positions: { codec: "gap", shift: 8 } }))],
    ["malformed", "TD-PCK-012", one((c) => ({ ...c, values: { codec: "replace" } })), true],
    ["malformed", "TD-VAL-006", one((c) => ({ ...c, order: { codec: "exponent", limit: 1 }, values: { codec: "replace" } }))],
    ["malformed", "TD-ORD-004", one((c) => ({ ...c, order: { codec: "exponent", limit: 257 } }))],
    ["malformed", "TD-MAN-006", one((c) => ({ ...c, order: { codec: "exponent", limit: 256 } }))],
    ["wrong-base", "TD-CHK-024", one((c) => ({ ...c, result: "0".repeat(16) }))],
    [null, "", one((c) => ({ ...c, colour: 1e3 }))],
  ];
  for (const [error, rule, edit, either] of cases) {
    const { chain, states, delta } = small();
    chain.publish(1, states[1], 0, [chain.chunkPack([delta()], states[1], edit)]);
    if (!error) expect(await readAll(chain, 1), states[1]);
    else await assert.rejects(readAll(chain, 1), either ? { error } : { error, rule }, rule);
  }
});

test("plain packs", async () => {
  const { chain, states } = small();
  const store = () => new MemoryStore(chain.objects);
  const bytes = wordBytes(states[1].a);
  const entry = (over) => ({ name: "a", dtype: "BF16", shape: [6], bytes, ...over });
  const publish = (entries, metadata, over = {}) => chain.publish(1, states[1], 0,
    [{ ...chain.put(safetensors(entries, metadata)), content: "tensors", tensors: [[0, 1]], changed: 6, ...over }]);
  publish([{ name: "zz", dtype: "U8", shape: [1], bytes: Uint8Array.of(1) }, entry({})], { tensordelta: "means nothing" });
  expect(await readAll(chain, 1), states[1]);
  for (const [error, over] of [["malformed", { shape: [3, 2] }], ["malformed", { dtype: "F16" }], ["unsupported", { dtype: "F128" }], ["malformed", { name: "q" }], ["malformed", { shape: [5] }]]) {
    publish([entry(over)]);
    await assert.rejects(new Reader(store()).read(1), { error });
  }
  publish([entry({})], { format: 1 });
  await assert.rejects(new Reader(store()).read(1), { error: "malformed" });
});

test("parts: a held tensor that is not the base's, and no fingerprints object", async () => {
  const { chain, states } = small();
  const reader = new Reader(new MemoryStore(chain.objects), { tensors: ["a"] });
  await reader.read(0);
  reader.held.tensors.get("a").bytes[0] ^= 1;
  const drifted = reader.held.tensors.get("a");
  drifted.fingerprint ^= 1n;
  await assert.rejects(reader.read(1), { error: "wrong-base", rule: "TD-RDR-011" });
  chain.publish(1, states[1], 0, chain.manifests.get(1).packs, { prints: false });
  await assert.rejects(readAll(chain, 1, { tensors: ["a"] }), { error: "unsupported", rule: "TD-RDR-013" });
  expect(await readAll(chain, 1), states[1]);
});

test("a pinned chain, and one that is remembered", async () => {
  const { chain } = small();
  await assert.rejects(readAll(chain, 0, { pin: CHAIN_ID.replace("0b", "0c") }), { error: "conflict", rule: "TD-OBJ-010" });
  const reader = new Reader(new MemoryStore(chain.objects));
  await reader.read(0);
  chain.objects.set("chain.json", new Uint8Array(Buffer.from(Buffer.from(chain.objects.get("chain.json")).toString().replace("0b5d", "0b5e"))));
  await assert.rejects(reader.read(1), { error: "conflict", rule: "TD-OBJ-010" });
});

test("sources and places", async () => {
  const { chain, states } = small();
  const path = PACK(chain, 1);
  const bytes = chain.objects.get(path);
  const remote = (sources) => chain.publish(1, states[1], 0, chain.manifests.get(1).packs.map((p) => ({ ...p, path: null, sources })));
  remote(["no scheme", "hf://o/m@c/f", "mem://x"]);
  chain.objects.delete(path);
  await assert.rejects(readAll(chain, 1), { error: "untrusted" });
  await assert.rejects(readAll(chain, 1, { sources: { hf: null } }), { error: "missing", rule: "TD-MAN-018" });
  await assert.rejects(readAll(chain, 1, { sources: { mem: async () => null } }), { error: "missing" });
  expect(await readAll(chain, 1, { sources: { mem: async () => bytes } }), states[1]);
  expect(await readAll(chain, 1, { places: [{ find: async () => bytes }] }), states[1]);
});

test("the verifier names every fault, of shortcuts too", async () => {
  const { chain, states, full } = small();
  chain.publish(1, states[1], null, [chain.chunkPack(full(states[1]), states[1])],
    { name: "shortcuts/000000000001-full.json", edit: (m) => ({ ...m, fingerprint: hex(1n) }) });
  chain.objects.set("shortcuts/000000000002-000000000000.json", Uint8Array.of(0x7b));
  chain.objects.delete(PACK(chain, 2));
  const faults = (await verify(new MemoryStore(chain.objects))).map((f) => `${f.error} ${f.object}`).sort();
  assert.deepEqual(faults, [
    "conflict shortcuts/000000000001-full.json", "malformed shortcuts/000000000002-000000000000.json", `missing ${PACK(chain, 2)}`,
  ]);
});

test("a hundred versions, the middle of them over a shortcut", async () => {
  const chain = new Chain();
  const next = random(9);
  let state = { a: { dtype: "BF16", shape: [50], words: words(next, 50, 16) } };
  chain.publish(0, state, null, [chain.plainPack(["a"], state)]);
  for (let v = 1; v < 100; v++) {
    const before = state;
    state = { a: mutate(next, state.a, 8) };
    state.a.words[v % 50] = BigInt.asUintN(16, before.a.words[v % 50] + 1n);
    chain.publish(v, state, v - 1, [chain.chunkPack([chain.chunk([["a", 0, 50]], before, state, {})], state)]);
  }
  const [s20, s70] = [chain.states.get(20), chain.states.get(70)];
  chain.publish(70, s70, 20, [chain.chunkPack([chain.chunk([["a", 0, 50]], s20, s70, {})], s70)], { name: "shortcuts/000000000070-000000000020.json" });
  const reader = new Reader(new MemoryStore(chain.objects));
  const { route } = await reader.read();
  assert.equal(route.length, 21 + 1 + 29);
  expect(reader.held, state);
});
