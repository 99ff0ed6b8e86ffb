/** What the page says, without a browser; page.test.js has the page itself. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { HttpStore, MemoryStore, Reader, Rejection, StoreFailure, changes, namesFromHint, overview, verify } from "../src/index.js";
import { bytesText, layerOf, natural, percentText } from "../page/figures.js";
import { byLayer, rowsOf, scaleOf, strength, sumOf } from "../page/heat.js";
import { inWords, namesOf } from "../page/sentences.js";
import { addressOf, folder } from "../page/sources.js";
import { rangesText, verdictOf } from "../page/verdict.js";
import { HINT, chain } from "./hinted.js";
import { casesOf } from "./vectors.js";
import { Chain, random } from "./writer.js";

const SAMPLE = JSON.parse(readFileSync(new URL("../page/sample.json", import.meta.url), "utf8"));
const sampleObjects = () => new Map(Object.entries(SAMPLE).map(([name, content]) =>
  [name, new Uint8Array(typeof content === "string" ? Buffer.from(content) : Buffer.from(content.base64, "base64"))]));

async function all(found) {
  const out = [];
  for await (const each of found) out.push(each);
  return out;
}

test("names are in natural order", () => {
  const names = ["layers.10.w", "layers.2.w", "layers.2.b", "embed", "layers", "layers.2.experts.11.w", "layers.2.experts.9.w"];
  assert.deepEqual([...names].sort(natural),
    ["embed", "layers", "layers.2.b", "layers.2.experts.9.w", "layers.2.experts.11.w", "layers.2.w", "layers.10.w"]);
  assert.equal(natural("a", "a"), 0);
  assert.deepEqual(["x.01", "x.1"].sort(natural), ["x.1", "x.01"].sort(natural));
});

test("figures have three digits", () => {
  assert.deepEqual([0, 999, 1000, 1_234_567, 98_765_432_100n].map(bytesText), ["0 B", "999 B", "1 kB", "1.23 MB", "98.8 GB"]);
  assert.deepEqual([0, 0.00012345, 0.5, 1].map(percentText), ["0 %", "0.0123 %", "50 %", "100 %"]);
});

test("a tensor's layer is its name up to the first number", () => {
  assert.equal(layerOf("model.layers.12.mlp.experts.3.weight"), "model.layers.12");
  assert.equal(layerOf("h.3.attn"), "h.3");
  assert.equal(layerOf("0.weight"), "0");
  assert.equal(layerOf("model.norm.weight"), "model.norm.weight");
  assert.equal(layerOf("fc1.weight"), "fc1.weight");
});

/** How many words of each tensor differ between two states. */
function differing(before, after) {
  const found = new Map();
  after.layout.tensors.forEach(({ name, words, dtype }, tensor) => {
    const [old, now] = [before.tensors.get(name)?.bytes, after.tensors.get(name).bytes];
    const width = dtype.w / 8;
    let count = 0;
    for (let j = 0; j < words; j++) {
      for (let b = 0; b < width; b++) {
        if ((old?.[j * width + b] ?? 0) !== now[j * width + b]) {
          count++;
          break;
        }
      }
    }
    if (count > 0) found.set(tensor, count);
  });
  return found;
}

test("changed words of each tensor are those that differ between the states", async () => {
  const store = new MemoryStore(sampleObjects());
  const { edges } = await overview(store);
  const deltas = edges.filter(({ manifest }) => manifest.base);
  const counted = new Map((await all(changes(store, deltas))).map((each) => [each.manifest.object, each]));
  assert.equal(counted.size, 34);
  const states = new Map();
  for (const { version, shortcut } of edges) {
    if (shortcut) continue;
    const reader = new Reader(store);
    await reader.read(version);
    states.set(version, reader.held);
  }
  for (const { manifest } of deltas) {
    const { changed, exact } = counted.get(manifest.object);
    assert.equal(exact, true);
    assert.deepEqual(new Map([...changed].filter(([, count]) => count > 0)), differing(states.get(manifest.base.version), states.get(manifest.version)));
  }
});

test("the words of every sound chain of the suite add up to what its manifests say", async () => {
  let [edgesSeen, spread] = [0, 0];
  for (const area of ["chains", "chunks", "order", "packs", "positions", "plain", "fitting", "shortcuts", "values"]) {
    for (const { id, verify: verdict, needs, flags, files } of casesOf(`${area}/valid`)) {
      if (!verdict || verdict.faults.length > 0 || needs.length > 0 || flags.length > 0) continue;
      const store = new MemoryStore(new Map([...files].filter(([name]) => name.startsWith("chain/")).map(([name, data]) => [name.slice(6), new Uint8Array(data)])));
      const { edges } = await overview(store);
      for await (const { manifest, changed, exact, error } of changes(store, edges.filter(({ layout }) => layout))) {
        assert.equal(error, undefined, id);
        const sum = [...changed.values()].reduce((total, count) => total + count, 0);
        assert.ok(Math.abs(sum - manifest.packs.reduce((total, pack) => total + pack.changed, 0)) < 1e-6, id);
        edgesSeen++;
        spread += exact ? 0 : 1;
      }
    }
  }
  assert.ok(edgesSeen > 100 && spread > 0);
});

test("in order exponent the words of a group are spread, those of a tensor with a group of its own are not", async () => {
  const written = new Chain();
  const next = random(3);
  const words = (n) => Array.from({ length: n }, () => BigInt(0x3c00 + next(64)));
  const before = { a: { dtype: "BF16", shape: [300], words: words(300) }, b: { dtype: "BF16", shape: [100], words: words(100) } };
  const after = { a: { ...before.a, words: before.a.words.with(7, 0x3d00n).with(8, 0x3d01n) }, b: { ...before.b, words: before.b.words.with(5, 0x3d00n).with(9, 0x3d00n) } };
  written.publish(0, before, null, [written.plainPack(["a", "b"], before)]);
  const chunk = (...slices) => written.chunk(slices, written.fitted(before, after), after, { order: "exponent", limit: 200 });
  const features = ["exponent-order"];
  written.publish(1, after, 0, [written.chunkPack([chunk(["a", 0, 300], ["b", 0, 100])], after)], { features });
  written.publish(2, after, 0, [written.chunkPack([chunk(["a", 0, 300]), chunk(["b", 0, 100])], after)], { features });
  const store = new MemoryStore(written.objects);
  const { edges } = await overview(store);
  const [together, apart] = await all(changes(store, edges.slice(1)));
  assert.deepEqual([together.exact, [...together.changed]], [false, [[0, 3], [1, 1]]]);
  assert.deepEqual([apart.exact, [...apart.changed]], [true, [[0, 2], [1, 2]]]);
});

test("a damaged pack is an error of its version alone", async () => {
  const objects = sampleObjects();
  const store = new MemoryStore(objects);
  const { edges } = await overview(store);
  const deltas = edges.filter(({ shortcut, manifest }) => !shortcut && manifest.base);
  const { path } = deltas[6].manifest.packs[0];
  objects.set(path, objects.get(path).map((byte, i) => (i === 700 ? byte ^ 1 : byte)));
  const found = await all(changes(store, deltas));
  assert.deepEqual(found.map(({ error }) => error?.error), deltas.map((_, i) => (i === 6 ? "integrity" : undefined)));
});

test("rows of the heat map", () => {
  const layout = (...tensors) => ({ tensors: tensors.map(([name, words]) => ({ name, words })) });
  const columns = [
    { layout: layout(["h.10.w", 8], ["h.2.b", 2], ["h.2.w", 8]), full: true },
    { layout: layout(["h.10.w", 8], ["h.2.b", 2], ["h.2.w", 8]), changed: new Map([[0, 1], [2, 4]]) },
    { layout: layout(["h.10.w", 8], ["h.2.w", 16]), changed: new Map([[1, 2]]) },
  ];
  const rows = rowsOf(columns);
  assert.deepEqual(rows.map(({ name, words, changed, total }) => [name, words, [...changed], total]), [
    ["h.2.b", 2, [NaN, 0, NaN], 0], ["h.2.w", 16, [NaN, 4, 2], 6], ["h.10.w", 8, [NaN, 1, 0], 1],
  ]);
  assert.deepEqual(byLayer(rows).map(({ name, words, changed }) => [name, words, [...changed]]), [
    ["h.2", 18, [NaN, 4, 2]], ["h.10", 8, [NaN, 1, 0]],
  ]);
  assert.deepEqual(sumOf("all", rows).total, 7);
  const scale = scaleOf(rows);
  assert.deepEqual(scale, { low: -1, high: 0 });
  assert.equal(strength(1, scale), 1);
  assert.equal(strength(0.1, scale), 0);
  assert.deepEqual(scaleOf(rowsOf([columns[0]])), { low: -1, high: 0 });
});

test("the verdict says what was proven, and what was not", () => {
  const look = { versions: [0, 1, 2, 4], proven: new Set([0, 1, 2, 4]), faults: [], shortcuts: 2, keys: 0, bytes: 5000, unlisted: false, more: false };
  const sound = verdictOf(look);
  assert.equal(sound.sentence, "No fault found: all 4 versions are proven.");
  assert.equal(sound.proven.length, 3);
  assert.match(sound.open.join("\n"), /^Who wrote the chain: you gave no public key/);
  const signed = verdictOf({ ...look, keys: 1, unlisted: true, more: true });
  assert.match(signed.proven.at(-1), /signed with the keys/);
  assert.doesNotMatch(signed.open.join("\n"), /public key/);
  assert.match(signed.open.join("\n"), /lists nothing.*not below version 0/);
  const broken = verdictOf({ ...look, proven: new Set([0, 1]), faults: [{}] });
  assert.deepEqual([sound.kind, broken.kind], ["good", "bad"]);
  assert.equal(broken.sentence, "1 fault: 2 of 4 versions are proven.");
  assert.match(broken.proven[0], /^Each of versions 0–1 was rebuilt/);
  assert.doesNotMatch(broken.proven.join("\n"), /shortcut|^Every pack/m);
  assert.match(broken.open[0], /^Versions 2, 4: a fault/);
  const lost = verdictOf({ ...look, proven: new Set(), faults: [{}, {}] });
  assert.deepEqual(lost.proven, []);
  assert.equal(lost.sentence, "2 faults: 0 of 4 versions are proven.");
  assert.equal(verdictOf({ ...look, faults: [{}] }).sentence, "1 fault: the words of all 4 versions are proven all the same.");
  const cut = verdictOf({ ...look, proven: new Set([0]), faults: [{ rule: "TD-LIM-002" }] });
  assert.deepEqual([cut.kind, cut.sentence, cut.faults], ["unsure", "Not all of it was verified: 1 of 4 versions is proven.", []]);
  assert.match(cut.open[0], /more memory than the page may use/);
  assert.equal(rangesText([1, 2, 3, 5, 8, 9]), "1–3, 5, 8–9");
});

test("the verifier names the versions that it proved", async () => {
  const objects = sampleObjects();
  const store = new MemoryStore(objects);
  const { edges } = await overview(store);
  const packOf = (version) => edges.find((edge) => edge.version === version && !edge.shortcut).manifest.packs[0].path;
  const look = async () => {
    const proven = [];
    const faults = await verify(store, { proven: (version) => proven.push(version) });
    return { proven, faults: faults.map(({ object }) => object) };
  };
  assert.deepEqual(await look(), { proven: [...Array(33).keys()], faults: [] });
  objects.set(packOf(7), objects.get(packOf(7)).map((byte, i) => (i === 700 ? byte ^ 1 : byte)));
  const { proven, faults } = await look();
  assert.deepEqual(faults, [packOf(7)]);
  // A shortcut leads to version 16 past the damage.
  assert.equal(rangesText(proven), "0–6, 16–32");
});

test("every error is one sentence and one advice", () => {
  const rejections = ["malformed", "unsupported", "limit", "integrity", "wrong-base", "missing", "conflict", "untrusted"]
    .map((error) => new Rejection(error, "TD-XXX-001", "manifests/000000000001.json", "it is so"));
  const answers = [403, 404, 500, null].map((status) => new StoreFailure("it failed", status));
  for (const e of [...rejections, ...answers, new Error("a slip"), new DOMException("gone", "NotReadableError")]) {
    const { sentence, advice } = inWords(e, { where: "https://example.com/run" });
    assert.match(sentence, /^[^.]+(\.\w+[^.]*)*\.$/, sentence);
    assert.match(advice, /\.$/);
    assert.doesNotMatch(sentence + advice, /TD-|undefined|NotReadable/);
  }
  assert.match(inWords(rejections[0]).detail, /TD-XXX-001/);
  assert.match(inWords(answers[3], { where: "https://example.com/run" }).sentence, /^example\.com does not answer, or does not let this page read\.$/);
});

test("objects are called by what they are", async () => {
  const { edges } = await overview(new MemoryStore(sampleObjects()));
  const names = namesOf(edges);
  const { path } = edges.find(({ version }) => version === 7).manifest.packs[0];
  assert.equal(inWords(new Rejection("integrity", "TD-MAN-013", path, "x"), { names }).sentence, "The pack of version 7 is damaged.");
  assert.equal(names.get("manifests/000000000003.json"), "The manifest of version 3");
  assert.equal(names.get("shortcuts/000000000016-000000000000.json"), "The shortcut 000000000016-000000000000");
});

test("an address is that of a folder, over https", () => {
  assert.equal(addressOf(" https://example.com/run-7/ "), "https://example.com/run-7");
  assert.equal(addressOf("https://example.com/a/chain.json"), "https://example.com/a");
  assert.equal(addressOf("http://localhost:8000/run"), "http://localhost:8000/run");
  for (const [typed, sentence] of [
    ["", /No address/], ["run-7", /“run-7” is not an address/], ["http://example.com/run", /Over http anybody/],
    ["s3://bucket/run", /cannot read s3/], ["https://me:secret@example.com/run", /no user name and no password/], ["https://example.com/?run=7", /names no folder/],
  ]) assert.throws(() => addressOf(typed), sentence);
});

test("a folder that is no chain is called what it is", () => {
  const files = (...paths) => new Map(paths.map((path) => [path, new Blob([])]));
  assert.throws(() => folder(files()), /This folder is empty/);
  assert.throws(() => folder(files("model.safetensors")), /model.safetensors is a file, not the folder/);
  assert.throws(() => folder(files("w/model.safetensors", "w/config.json")), /not a chain but has weights \(model.safetensors\)/);
  assert.throws(() => folder(files("w/model.safetensors", "w/.tensordelta/checkout.json")), /the weights of one version/);
  assert.throws(() => folder(files("notes/a.txt")), /This folder is not a chain/);
  const found = folder(files("runs/b/chain.json", "runs/a/chain.json", "runs/a/manifests/000000000000.json"));
  assert.equal(found.title, "runs/a");
  assert.match(found.note, /another chain.*runs\/b/);
  assert.deepEqual([...found.store.store.files.keys()], ["chain.json", "manifests/000000000000.json"]);
});

// -- what a web server tells ------------------------------------------------------------------------------------------

async function served(context, objects, answer = () => undefined) {
  const server = createServer((request, response) => {
    const name = request.url.slice("/run/".length);
    const status = answer(name);
    if (status) response.writeHead(status).end();
    else if (objects.has(name)) response.end(objects.get(name));
    else response.writeHead(404).end();
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  context.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return new HttpStore(`http://127.0.0.1:${server.address().port}/run`);
}

test("the names of a chain on a server are found from its hint", async (context) => {
  const objects = sampleObjects();
  const store = await served(context, objects);
  const listed = [...objects.keys()].filter((name) => /^(manifests|shortcuts)\//.test(name)).sort();
  const { names, newest, more } = await namesFromHint(store);
  assert.deepEqual([[...names].sort(), newest, more], [listed, 32, false]);
  const cut = await namesFromHint(store, { most: 5 });
  assert.deepEqual([cut.names.filter((name) => name.startsWith("manifests/")).length, cut.more], [5, true]);
  // Versions that a collector has dropped, and a server that refuses what is absent.
  for (const version of [31, 30, 3]) objects.delete(`manifests/${String(version).padStart(12, "0")}.json`);
  const manifest = JSON.parse(Buffer.from(objects.get("manifests/000000000032.json")));
  manifest.base.version = 29;
  objects.set("manifests/000000000032.json", Buffer.from(JSON.stringify(manifest)));
  const versions = async (found) => (await found).names.filter((name) => name.startsWith("manifests/")).map((name) => Number(name.slice(10, 22)));
  assert.equal(rangesText((await versions(namesFromHint(store))).reverse()), "4–29, 32");
  const refusing = await served(context, objects, (name) => (objects.has(name) ? undefined : 403));
  assert.equal(rangesText((await versions(namesFromHint(refusing))).reverse()), "4–29, 32");
});

test("without a hint, or a chain, the names are not found", async (context) => {
  const objects = chain(2);
  objects.delete(HINT);
  await assert.rejects(namesFromHint(await served(context, objects)), { rule: "TD-OBJ-018" });
  await assert.rejects(namesFromHint(await served(context, new Map())), { rule: "TD-OBJ-009" });
  for (const broken of ["chain.json", "manifests/000000000001.json"]) {
    await assert.rejects(namesFromHint(await served(context, chain(2), (name) => (name === broken ? 503 : undefined))), { status: 503 });
  }
});

test("the page and its README say the sample's size", () => {
  const objects = sampleObjects();
  const bytes = [...objects.values()].reduce((sum, { length }) => sum + length, 0);
  const versions = [...objects.keys()].filter((name) => name.startsWith("manifests/")).length;
  const html = readFileSync(new URL("../index.html", import.meta.url), "utf8");
  assert.ok(html.includes(`${versions} versions, ${Math.round(bytes / 1000)} kB`));
  const file = readFileSync(new URL("../page/sample.json", import.meta.url)).length;
  assert.ok(readFileSync(new URL("../README.md", import.meta.url), "utf8").includes(`one file of ${Math.round(file / 1000)} kB`));
});
