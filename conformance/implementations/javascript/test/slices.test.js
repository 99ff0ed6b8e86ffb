/** Readers of slices (section 9.5). */
import { test } from "node:test";
import assert from "node:assert/strict";
import { once } from "node:events";
import { Worker } from "node:worker_threads";
import { Holder, MemoryStore, Reader, Shares, Slices, proveTogether, readTogether, total } from "../src/index.js";
import { DTYPES } from "../src/dtypes.js";
import { Chain, random, wordBytes } from "./writer.js";

const sharesOf = (pieces) => new Shares(pieces.length, ({ name }) => pieces.map((each) => each[name] ?? []));
const entry = (name, words) => ({ name, words, dtype: { name: "U8" }, shape: [words] });

/** The words of a share, one by one, from a whole tensor's bytes. */
function expected(tensor, pieces) {
  const { w } = DTYPES.get(tensor.dtype);
  const had = (j) => pieces.some(([start, stop, row]) => (row ? j % row : j) >= start && (row ? j % row : j) < stop);
  return wordBytes({ dtype: tensor.dtype, words: tensor.words.filter((_, j) => had(j)), w });
}

/** Holders of a version, each with memory of its own. */
async function group(chain, pieces, version, options = {}) {
  const store = new MemoryStore(chain.objects);
  const shares = sharesOf(pieces);
  const reader = new Reader(store);
  if (version !== null) await reader.read(version);
  const holders = pieces.map((_, index) =>
    new Holder(store, { index, shares, held: version === null ? null : Slices.of(reader.held, shares, index), ...options }));
  if (version !== null) await proveTogether(holders);
  return holders;
}

function compare(holders, pieces, state) {
  holders.forEach(({ held }, i) => {
    for (const [name, tensor] of Object.entries(state)) {
      const want = expected(tensor, pieces[i][name] ?? []);
      assert.equal(Buffer.compare(held.tensors.get(name)?.bytes ?? new Uint8Array(0), want), 0, `${i} ${name}`);
    }
  });
}

test("shares: runs, columns, owners and copies", () => {
  const shares = sharesOf([{ a: [[0, 3], [2, 4]] }, { a: [[1, 2, 4]] }, {}, { a: [[0, 12]] }]);
  const of = (i) => shares.of(i, entry("a", 12)).stretches.map(({ start, stop, place, owned, copies }) => [start, stop, place, owned, copies]);
  assert.deepEqual(of(0), [[0, 1, 0, true, 2], [1, 2, 1, true, 3], [2, 4, 2, true, 2]]);
  assert.deepEqual(of(1), [[1, 2, 0, false, 3], [5, 6, 1, true, 2], [9, 10, 2, true, 2]]);
  assert.deepEqual(of(2), []);
  assert.deepEqual(of(3).map(([start, , , owned, copies]) => [start, owned, copies]),
    [[0, false, 2], [1, false, 3], [2, false, 2], [4, true, 1], [5, false, 2], [6, true, 1], [9, false, 2], [10, true, 1]]);
  assert.equal(shares.of(3, entry("a", 12)).within(3, 7), 4);
  assert.equal(shares.of(1, entry("a", 12)).within(2, 10), 2);
  assert.equal(shares.first(entry("a", 12)), 0);
  assert.equal(shares.have(entry("b", 1)), false);
  assert.equal(shares.have(entry("b", 0)), true);
  assert.throws(() => sharesOf([{ a: [[0, 13]] }]).of(0, entry("a", 12)), RangeError);
  assert.throws(() => sharesOf([{ a: [[3, 5, 4]] }]).of(0, entry("a", 12)), RangeError);
});

/** A chain with all dtypes: fitting, chunks over several tensors, plain packs, a full shortcut. */
function varied(seed) {
  const next = random(seed);
  const chain = new Chain();
  const words = (n, w) => Array.from({ length: n }, () => BigInt.asUintN(w, BigInt(next(2 ** 32)) * BigInt(next(2 ** 32))));
  const make = (dtype, n) => ({ dtype, shape: [n * 4], words: words(n * 4 * DTYPES.get(dtype).bits / DTYPES.get(dtype).w, DTYPES.get(dtype).w) });
  const first = {};
  for (const name of DTYPES.keys()) first[`${name}.a`] = make(name, 6);
  first["BF16.b"] = make("BF16", 5);
  first["old"] = make("F32", 3);
  chain.publish(0, first, null, [chain.plainPack(Object.keys(first).sort(), first)]);
  const mutate = (tensor, share) => ({ ...tensor, words: tensor.words.map((x) => (next(share) ? x : BigInt.asUintN(DTYPES.get(tensor.dtype).w, x + BigInt(1 + next(70000))))) });
  const second = Object.fromEntries(Object.entries(first).map(([name, t]) => [name, mutate(t, 3)]));
  const how = (i) => [{}, { shift: 4, compression: "zstd" }, { positions: "bitmap" }, { values: "replace" }][i % 4];
  const chunks = Object.keys(second).filter((name) => !["BF16.a", "BF16.b", "U8.a"].includes(name))
    .map((name, i) => chain.chunk([[name, 0, second[name].words.length]], first, second, how(i)));
  chunks.push(chain.chunk([["BF16.a", 1, second["BF16.a"].words.length], ["BF16.b", 0, 7]], first, second, {}));
  second["BF16.a"].words[0] = first["BF16.a"].words[0];
  for (let j = 7; j < 20; j++) second["BF16.b"].words[j] = first["BF16.b"].words[j];
  chain.publish(1, second, 0, [chain.chunkPack(chunks.filter((c) => c), second), chain.plainPack(["U8.a"], second)]);
  const { old, ...third } = Object.fromEntries(Object.entries(second).map(([name, t]) => [name, mutate(t, 9)]));
  third.young = make("I16", 2);
  const fitted = chain.fitted(second, third);
  const more = Object.keys(third).map((name) => chain.chunk([[name, 0, third[name].words.length]], fitted, third, {}));
  chain.publish(2, third, 1, [chain.chunkPack(more.filter((c) => c), third)]);
  return { chain, states: [first, second, third], next };
}

/** Shares of four holders at random: every word has one, some several. */
function randomPieces(next, states) {
  const pieces = [{}, {}, {}, {}];
  const tensors = Object.assign({}, ...states);
  for (const [name, { words }] of Object.entries(tensors)) {
    const n = words.length;
    const kind = next(4);
    const add = (i, piece) => (pieces[i][name] ??= []).push(piece);
    if (kind === 0) pieces.forEach((_, i) => add(i, [0, n]));
    else if (kind === 1) add(next(4), [0, n]);
    else if (kind === 2) {
      const cuts = [0, ...[next(n + 1), next(n + 1), next(n + 1)].sort((a, b) => a - b), n];
      pieces.forEach((_, i) => add(i, [cuts[i], Math.min(n, cuts[i + 1] + next(3))]));
    } else {
      const row = 4 + next(3);
      pieces.forEach((_, i) => add(i, [i, i + 1, row]));
      if (row > 4) add(next(4), [3, row, row]);
    }
  }
  return pieces;
}

test("random shares of all dtypes, over chunks, plain packs and fitting", async () => {
  for (let seed = 1; seed <= 6; seed++) {
    const { chain, states, next } = varied(seed);
    const pieces = randomPieces(next, states);
    for (const [from, to] of [[0, 1], [1, 2], [0, 2], [null, 1], [2, 2]]) {
      const holders = await group(chain, pieces, from);
      assert.equal(await readTogether(holders, to), to);
      compare(holders, pieces, states[to]);
    }
  }
});

test("a listed word that changed in any memory is noticed, and nobody applies", async () => {
  const { chain, states } = varied(9);
  const halves = { "F64.a": [[[0, 12]], [[12, 24]]], "I32.a": [[[0, 24]], [[0, 24]]] };
  const pieces = [0, 1].map((i) => Object.fromEntries(Object.entries(states[0])
    .map(([name, { words }]) => [name, halves[name]?.[i] ?? [[0, words.length]]])));
  const listed = (name) => states[0][name].words.findIndex((x, j) => x !== states[1][name].words[j]);
  for (const name of ["F64.a", "I32.a", "BF16.a"]) {
    for (const index of [0, 1]) {
      const { w } = DTYPES.get(states[0][name].dtype);
      const holders = await group(chain, pieces, 0);
      const share = holders[0].shares.of(index, holders[index].held.layout.tensors.find((t) => t.name === name));
      const word = listed(name);
      if (share.within(word, word + 1) === 0) continue;
      const before = holders.map(({ held }) => held);
      holders[index].held.tensors.get(name).bytes[share.place(word) * w / 8] ^= 1;
      await assert.rejects(readTogether(holders, 1), (e) => ["wrong-base", "integrity"].includes(e.error));
      holders.forEach(({ held }, i) => assert.equal(held, before[i]));
      await assert.rejects(proveTogether(holders), { error: "wrong-base", rule: "TD-SLC-002" });
    }
  }
});

test("a replaced word that changed in memory, and a word that nobody has", async () => {
  const { chain, states } = varied(6);
  const table = (path) => {
    const bytes = Buffer.from(chain.objects.get(path));
    return JSON.parse(JSON.parse(bytes.subarray(8, 8 + Number(bytes.readBigUInt64LE()))).__metadata__.tensordelta);
  };
  const replaced = table(chain.manifests.get(1).packs[0].path).chunks.find(({ values }) => values.codec === "replace");
  const name = Object.keys(states[0]).sort()[replaced.slices[0][0]];
  const whole = [Object.fromEntries(Object.entries(states[0]).map(([each, { words }]) => [each, [[0, words.length]]]))];
  const one = await group(chain, whole, 0);
  const { bytes } = one[0].held.tensors.get(name);
  const width = DTYPES.get(states[0][name].dtype).w / 8;
  bytes[width * states[0][name].words.findIndex((x, j) => x !== states[1][name].words[j])] ^= 1;
  await assert.rejects(readTogether(one, 1), { error: "integrity", rule: "TD-RDR-007" });

  const lacking = [{ ...whole[0], "F64.a": [[12, 24]] }];
  await assert.rejects(group(chain, lacking, 0), { error: "wrong-base", rule: "TD-SLC-002" });
  const reader = new Reader(new MemoryStore(chain.objects));
  await reader.read(0);
  const shares = sharesOf(lacking);
  const held = Slices.of(reader.held, shares, 0).named(0, reader.held.fingerprint);
  await assert.rejects(readTogether([new Holder(reader.store, { index: 0, shares, held })], 1), { error: "wrong-base", rule: "TD-SLC-001" });
});

test("a holder that missed an update, and one that remembers another fingerprint", async () => {
  const { chain, states } = varied(3);
  const pieces = [0, 1].map((i) => Object.fromEntries(Object.entries(states[0])
    .map(([name, { words }]) => [name, i === 0 ? [[0, 3]] : [[3, words.length]]])));
  const [one, other] = [await group(chain, pieces, 0), await group(chain, pieces, 1)];
  await assert.rejects(readTogether([one[0], other[1]], 2), (e) => e.name === "GroupFailure");
  const holders = await group(chain, pieces, 1);
  holders[1].held = holders[1].held.named(1, holders[1].held.fingerprint ^ 1n);
  for (const name of ["manifests/000000000000.json"]) chain.objects.delete(name);
  await assert.rejects(readTogether(holders, 2), { error: "wrong-base", rule: "TD-SLC-003" });
});

test("an edge that fails for one holder is left out by all", async () => {
  const { chain, states } = varied(4);
  const pieces = [{ "F64.a": [[0, 24]] }, Object.fromEntries(Object.entries(states[1])
    .filter(([name]) => name !== "F64.a").map(([name, { words }]) => [name, [[0, words.length]]]))];
  const split = (names) => chain.chunkPack(names.map((name) => chain.chunk([[name, 0, states[1][name].words.length]], states[0], states[1], {})).filter((c) => c), states[1]);
  const names = Object.keys(states[1]);
  const lone = split(["F64.a"]);
  chain.publish(1, states[1], 0, [lone, split(names.filter((name) => name !== "F64.a"))], { name: "shortcuts/000000000001-000000000000.x.json" });
  const usable = await group(chain, pieces, 0);
  chain.objects.delete(lone.path);
  assert.equal(await readTogether(usable, 1), 1);
  compare(usable, pieces, states[1]);
  const only = await group(chain, pieces, 0);
  for (const path of chain.manifests.get(1).packs.map(({ path }) => path)) chain.objects.delete(path);
  await assert.rejects(readTogether(only, 1), { error: "missing" });
});

test("order exponent is read by those who have all words of a chunk, or none", async () => {
  const next = random(12);
  const chain = new Chain();
  const make = (n) => ({ dtype: "BF16", shape: [n], words: Array.from({ length: n }, () => BigInt(next(65536))) });
  const first = { a: make(40), b: make(30) };
  chain.publish(0, first, null, [chain.plainPack(["a", "b"], first)]);
  const second = Object.fromEntries(Object.entries(first).map(([name, t]) => [name, { ...t, words: t.words.map((x) => (next(3) ? x : x ^ 1n)) }]));
  const chunk = (name) => chain.chunk([[name, 0, second[name].words.length]], first, second, { order: "exponent", limit: 120 });
  chain.publish(1, second, 0, [chain.chunkPack([chunk("a"), chunk("b")], second)], { features: ["exponent-order"] });
  const apart = [{ a: [[0, 40]] }, { b: [[0, 30]] }, { a: [[0, 40]], b: [[0, 30]] }];
  const holders = await group(chain, apart, 0);
  await readTogether(holders, 1);
  compare(holders, apart, second);
  const halves = await group(chain, [{ a: [[0, 39]], b: [[0, 30]] }, { a: [[39, 40]] }], 0);
  await assert.rejects(readTogether(halves, 1), { error: "unsupported", rule: "TD-RDR-017" });
});

test("a group that lacks tensors is proven by the fingerprints objects", async () => {
  const { chain, states } = varied(5);
  const some = ["F64.a", "BF16.b", "old", "young", "U8.a"];
  const pieces = [0, 1].map((i) => Object.fromEntries(some.map((name) => {
    const n = (states[2][name] ?? states[0][name]).words.length;
    return [name, i === 0 ? [[0, n >> 1]] : [[n >> 1, n]]];
  })));
  for (const [from, to] of [[0, 1], [0, 2], [null, 2], [1, 2]]) {
    const holders = await group(chain, pieces, from);
    await readTogether(holders, to);
    compare(holders, pieces, Object.fromEntries(Object.entries(states[to]).filter(([name]) => some.includes(name))));
  }
  const holders = await group(chain, pieces, 0);
  const word = states[0]["F64.a"].words.findIndex((x, j) => x !== states[1]["F64.a"].words[j]);
  assert.ok(word < 12);
  holders[0].held.tensors.get("F64.a").bytes[8 * word] ^= 1;
  await assert.rejects(readTogether(holders, 1), { error: "wrong-base" });
});

test("holders in threads of their own, by messages alone", async () => {
  const { chain, states } = varied(7);
  const pieces = [0, 1, 2].map((i) => Object.fromEntries(Object.entries(states[0])
    .map(([name, { words }]) => [name, words.length % 3 === 0 ? [[i, i + 1, 3]] : [[0, words.length]]])));
  const threads = await Promise.all(pieces.map(async (_, index) => {
    const worker = new Worker(new URL("holder_worker.js", import.meta.url), { workerData: { objects: chain.objects, index, pieces, version: 0 } });
    await once(worker, "message");
    return worker;
  }));
  const all = (what, value) => Promise.all(threads.map(async (worker, i) => {
    const answer = once(worker, "message");
    worker.postMessage([what, typeof value === "function" ? value(i) : value]);
    return (await answer)[0];
  }));
  try {
    const values = async (...args) => (await all(...args)).map(({ value }) => value);
    await all("prove", total(await values("scan")));
    const answers = await values("ask", 1);
    assert.deepEqual(answers.map(({ failure }) => failure), [null, null, null]);
    assert.deepEqual(await values("settle", total(answers.map(({ sums }) => sums))), [undefined, undefined, undefined]);
    const words = await values("words");
    words.forEach((of, i) => Object.entries(states[1]).forEach(([name, tensor]) =>
      assert.equal(Buffer.compare(of.get(name) ?? new Uint8Array(0), expected(tensor, pieces[i][name])), 0, name)));
    // One of them is lost on the way to the next version.
    const [, ...rest] = await values("ask", 2);
    assert.deepEqual((await all("settle", total(rest.map(({ sums }) => sums)))).map(({ error }) => error), ["GroupFailure", "GroupFailure", "GroupFailure"]);
  } finally {
    await Promise.all(threads.map((worker) => worker.terminate()));
  }
});
