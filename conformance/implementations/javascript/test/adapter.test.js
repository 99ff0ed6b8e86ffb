import { test } from "node:test";
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { mkdir, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { existsSync } from "node:fs";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { FolderStore, loadState } from "../src/node.js";
import { HttpStore, Reader, overview } from "../src/index.js";
import { appendix, packsOf } from "./spec.js";

const ADAPTER = fileURLToPath(new URL("../adapter.js", import.meta.url));
const FULL = "shortcuts/000000000002-full.json";

async function folder(run, objects = appendix()) {
  const place = await mkdtemp(join(tmpdir(), "tensordelta-js-"));
  const chain = join(place, "chain");
  try {
    for (const [name, bytes] of objects) {
      await mkdir(dirname(join(chain, name)), { recursive: true });
      await writeFile(join(chain, name), bytes);
    }
    await run(place, chain);
  } finally {
    await rm(place, { recursive: true });
  }
}

/** A long-lived adapter: ask(request) -> answer. */
async function adapter(run) {
  const child = spawn(process.execPath, [ADAPTER], { stdio: ["pipe", "pipe", "inherit"] });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  let id = 0;
  try {
    await run(async (request) => {
      child.stdin.write(`${JSON.stringify({ id: ++id, ...request })}\n`);
      const answer = JSON.parse((await lines.next()).value);
      assert.equal(answer.id, id);
      return answer;
    });
  } finally {
    child.stdin.end();
  }
}
const once = (op, request) => new Promise((resolve) => {
  execFile(process.execPath, [ADAPTER, op, request], (error, stdout) => resolve({ code: error ? error.code : 0, out: stdout && JSON.parse(stdout) }));
});

test("hello, read, prepare, apply, undo, verify", () => folder((place, chain) => adapter(async (ask) => {
  const out = join(place, "out.safetensors");
  const read = (more) => ask({ op: "read", chain, out, ...more });
  const held = async () => Object.fromEntries([...(await loadState(out)).tensors].map(([name, t]) => [name, Buffer.from(t.bytes).toString("hex")]));
  assert.equal((await ask({ op: "hello", protocol: 1 })).protocol, 1);
  assert.equal((await read({ held: null, to: 9 })).error, "missing");
  assert.ok(!existsSync(out));
  assert.deepEqual(await read({ held: null, to: 1 }), { id: 3, ok: true, version: 1 });
  const one = join(place, "one.safetensors");
  await writeFile(one, await readFile(out));
  const first = await held();
  assert.equal(first["norm.weight"], "813f803f7e3f7e3f");
  assert.equal((await read({ to: 9 })).error, "missing");
  assert.deepEqual(await held(), first);
  assert.equal((await read({ to: null })).version, 2);
  assert.equal((await held())["gate.weight"], "38b80030c47f");
  assert.equal((await read({ held: null, to: 2, memory: 2000 })).error, "limit");
  assert.ok(!existsSync(out));
  assert.equal((await read({ held: null, to: 2, pin: "5f0c8a52-3a1e-4b7d-9c64-0d2f6b1e7a91" })).error, "conflict");
  assert.equal((await read({ held: null, to: 2, tensors: ["norm.weight", "scale"] })).ok, true);
  assert.deepEqual(await held(), { "norm.weight": "813f803f7f3f7c3f" });
  assert.equal((await ask({ op: "prepare", chain, held: { state: one, version: 1 }, to: 2 })).version, 2);
  assert.equal((await ask({ op: "apply", out })).ok, true);
  assert.equal((await held())["norm.weight"], "813f803f7f3f7c3f");
  assert.equal((await ask({ op: "undo", out })).ok, true);
  assert.deepEqual(await held(), first);
  assert.equal((await read({ held: null, to: 0 })).ok, true);
  const zero = await held();
  assert.equal((await ask({ op: "apply", out })).error, "wrong-base");
  assert.deepEqual(await held(), zero);
  assert.deepEqual((await ask({ op: "verify", chain })).faults, []);
  assert.ok((await ask({ op: "publish", chain })).unsupported);
  assert.equal((await read({ held: null, keys: ["d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"] })).error, "untrusted");
  assert.equal((await ask({ op: "verify", chain: join(place, "nowhere") })).faults[0].error, "missing");
})));

test("one-shot, with its exit codes", () => folder(async (place, chain) => {
  const out = join(place, "out");
  assert.deepEqual(await once("read", JSON.stringify({ chain, held: null, to: 0, out })), { code: 0, out: { ok: true, version: 0 } });
  assert.ok(existsSync(out));
  assert.equal((await once("read", JSON.stringify({ chain, held: null, to: 5, out }))).code, 1);
  assert.equal((await once("read", "no json")).code, 2);
  assert.equal((await once("publish", "{}")).code, 3);
  assert.deepEqual((await once("hello", "{}")).out.protocol, 1);
}));

test("links: inside the root they are followed, out of it never", () => folder(async (place, chain) => {
  const store = new FolderStore(chain);
  const bytes = await readFile(join(chain, FULL));
  await mkdir(join(chain, "elsewhere"));
  await writeFile(join(place, "outside.json"), bytes);
  await writeFile(join(chain, "elsewhere", "inside.json"), bytes);
  await rm(join(chain, FULL));
  await symlink("../elsewhere/inside.json", join(chain, FULL));
  assert.equal(Buffer.compare(await store.get(FULL), bytes), 0);
  assert.ok((await store.list("shortcuts/")).includes(FULL));
  for (const target of ["../../outside.json", join(place, "outside.json"), "/etc/hostname", "../elsewhere/../../outside.json", "/nonexistent"]) {
    await rm(join(chain, FULL));
    await symlink(target, join(chain, FULL));
    await assert.rejects(store.get(FULL), { error: "untrusted", rule: "TD-STO-006" });
    assert.ok((await store.list("shortcuts/")).includes(FULL));
  }
  for (const target of ["nothing.json", "000000000002-full.json", "../elsewhere", ".."]) {
    await rm(join(chain, FULL));
    await symlink(target, join(chain, FULL));
    assert.equal(await store.get(FULL), null);
    assert.ok(!(await store.list("shortcuts/")).includes(FULL));
  }
  assert.equal(await store.get("packs"), null);
  assert.deepEqual(await store.list("nowhere/"), []);
}));

test("a folder of shortcuts that leads away is empty for the reader, and a fault for the verifier", () => folder((place, chain) => adapter(async (ask) => {
  await mkdir(join(place, "away"));
  await rm(join(chain, "shortcuts"), { recursive: true });
  await symlink(join(place, "away"), join(chain, "shortcuts"));
  assert.equal((await ask({ op: "read", chain, held: null, to: 2 })).ok, true);
  assert.deepEqual((await ask({ op: "verify", chain })).faults.map((f) => [f.error, f.object]), [["untrusted", "shortcuts/"]]);
})));

test("sources and places of a folder", () => folder((place, chain) => adapter(async (ask) => {
  const [pack] = packsOf(FULL);
  const away = join(place, "away");
  await mkdir(away);
  await writeFile(join(away, "any name"), await readFile(join(chain, pack)));
  const manifest = JSON.parse(await readFile(join(chain, FULL), "utf8"));
  const request = { op: "read", chain, held: null, to: 2 };
  for (const name of ["manifests/000000000000.json", "manifests/000000000001.json", pack]) await rm(join(chain, name));
  assert.equal((await ask(request)).error, "missing");
  assert.equal((await ask({ ...request, places: [away] })).ok, true);
  manifest.packs[0].path = null;
  manifest.packs[0].sources = ["hf://o/m@c/f", pathToFileURL(join(away, "any name")).href];
  await writeFile(join(chain, FULL), JSON.stringify(manifest));
  assert.equal((await ask(request)).error, "untrusted");
  assert.equal((await ask({ ...request, sources: ["file"] })).ok, true);
  assert.equal((await ask({ ...request, sources: ["hf"] })).error, "missing");
  assert.equal((await ask({ ...request, places: [away] })).ok, true);
})));

test("the overview", () => folder(async (place, chain) => {
  const { edges } = await overview(new FolderStore(chain));
  assert.deepEqual(edges.map((e) => [e.version, e.shortcut]), [[0, false], [1, false], [2, false], [2, true], [2, true]]);
}));

test("objects behind HTTP: absence is a 404, anything else is no proof", async () => {
  const objects = appendix();
  let broken = null;
  const server = createServer((request, answer) => {
    const name = request.url.slice("/run/".length);
    if (name === broken) answer.writeHead(503).end();
    else if (objects.has(name)) answer.end(objects.get(name));
    else answer.writeHead(404).end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const store = new HttpStore(`http://127.0.0.1:${server.address().port}/run`, [...objects.keys()]);
    const reader = new Reader(store);
    await reader.read(1);
    assert.equal(reader.held.version, 1);
    await assert.rejects(store.get("chain.json", 10), { name: "TooLong" });
    const [pack] = packsOf("manifests/000000000002.json");
    objects.delete(pack);
    assert.deepEqual((await reader.prepare(2)).route, ["shortcuts/000000000002-000000000001.nat.json"]);
    broken = pack;
    await assert.rejects(reader.prepare(2), (e) => e.name === "StoreFailure" && /503/.test(e.message));
  } finally {
    server.close();
    server.closeAllConnections();
  }
});
