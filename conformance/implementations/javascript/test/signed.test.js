/** Signatures (section 14), and what a reader remembers of versions that it has held. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { createPrivateKey, createPublicKey, sign } from "node:crypto";
import { MemoryStore, Reader, verify } from "../src/index.js";
import { nodeVerify } from "../src/node.js";
import { Keys, keyId, message, parseSignature, signatureName, webVerify } from "../src/signature.js";
import { Budget } from "../src/budget.js";
import { appendix, examples } from "./spec.js";
import { sha, utf8 } from "./writer.js";

const SECRET_HEAD = Buffer.from("302e020100300506032b657004220420", "hex");
/** The first two secret keys of RFC 8032, section 7.1. */
const SECRETS = ["9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60", "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"]
  .map((hex) => createPrivateKey({ key: Buffer.concat([SECRET_HEAD, Buffer.from(hex, "hex")]), format: "der", type: "pkcs8" }));
const raw = (secret) => new Uint8Array(createPublicKey(secret).export({ format: "der", type: "spki" }).subarray(-32));
const PUBLIC = SECRETS.map((secret) => Buffer.from(raw(secret)).toString("hex"));
const [FIRST, SECOND] = PUBLIC;
const manifest = (version) => `manifests/${String(version).padStart(12, "0")}.json`;

function signObject(objects, name, which = 0) {
  const signed = message(name, objects.get(name));
  const sig = sign(null, signed, SECRETS[which]).toString("base64");
  objects.set(signatureName(sha(signed), keyId(raw(SECRETS[which]))), utf8(JSON.stringify({ tensordelta: "1.0-rc.1", sig })));
}

/** The chain of appendix A; signed but for some names. */
function chain(without = []) {
  const objects = appendix();
  for (const name of objects.keys()) {
    if (/^(chain\.json|manifests\/|shortcuts\/)/.test(name) && !without.includes(name)) signObject(objects, name);
  }
  return objects;
}
const reader = (objects, options = {}) => new Reader(new MemoryStore(objects), { keys: [FIRST], ...options });

test("the example of section 14", async () => {
  const [{ text }] = examples().filter(({ kind, valid }) => kind === "signature" && valid);
  const signed = message("chain.json", appendix().get("chain.json"));
  assert.equal(keyId(raw(SECRETS[0])), "21fe31dfa154a261");
  const sig = parseSignature(utf8(text), "signature", new Budget(1e6));
  for (const check of [webVerify, nodeVerify]) {
    assert.equal(await check(raw(SECRETS[0]), sig, signed), true);
    assert.equal(await check(raw(SECRETS[1]), sig, signed), false);
    assert.equal(await check(raw(SECRETS[0]), sig, signed.subarray(1)), false);
  }
});

test("a signed chain is read and verified, by the platform's cryptography and by Node's", async () => {
  const objects = chain();
  for (const verifySignature of [undefined, nodeVerify]) {
    const one = reader(objects, { verifySignature });
    await one.read();
    assert.equal(one.held.version, 2);
    assert.deepEqual(await verify(new MemoryStore(objects), { keys: [FIRST], verifySignature }), []);
  }
});

test("what is not signed", async () => {
  const untrusted = { error: "untrusted", rule: "TD-SIG-012" };
  await assert.rejects(reader(chain(["chain.json"])).read(), { ...untrusted, object: "chain.json" });
  await assert.rejects(reader(chain([manifest(2)])).read(2), { ...untrusted, object: manifest(2) });
  const older = reader(chain([manifest(2)]));
  await older.read();
  assert.equal(older.held.version, 1);
  await assert.rejects(reader(chain([manifest(0), manifest(1), manifest(2)])).read(), { error: "untrusted", rule: "TD-SIG-015" });
  const objects = chain([manifest(1)]);
  const { route } = await reader(objects).read();
  assert.deepEqual(route, ["shortcuts/000000000002-full.json"]);
  assert.deepEqual((await verify(new MemoryStore(objects), { keys: [FIRST] })).map(({ error, object }) => [error, object]), [["untrusted", manifest(1)]]);
  assert.deepEqual(await verify(new MemoryStore(objects)), []);
});

test("a manifest that is too long to be signed is passed over, and hides no version", async () => {
  const objects = chain();
  objects.set(manifest(3), new Uint8Array(64 * 2 ** 20 + 1));
  const one = reader(objects);
  await one.read();
  assert.equal(one.held.version, 2);
  await assert.rejects(one.read(3), { error: "limit" });
});

test("a threshold counts keys", async () => {
  const objects = chain();
  const both = { keys: [FIRST, SECOND, SECOND], threshold: 2 };
  await assert.rejects(reader(objects, both).read(1), { error: "untrusted", object: "chain.json" });
  for (const name of [...objects.keys()]) if (/^(chain|manifests)/.test(name)) signObject(objects, name, 1);
  await reader(objects, both).read(1);
  await assert.rejects(reader(objects, { ...both, threshold: 3 }).read(1), { error: "untrusted" });
  assert.throws(() => new Keys([FIRST], { threshold: 0 }), RangeError);
  assert.throws(() => new Keys([FIRST.slice(1)]), TypeError);
});

test("a store that does not answer says nothing about a signature", async () => {
  const objects = chain();
  const store = new MemoryStore(objects);
  store.get = async (name) => {
    if (name.startsWith("signatures/")) throw new Error("503");
    return objects.get(name) ?? null;
  };
  await assert.rejects(new Reader(store, { keys: [FIRST] }).read(), { message: "503" });
});

test("no way back, unless the user allows it", async () => {
  const objects = chain();
  const one = reader(objects);
  await one.read(1);
  await assert.rejects(one.read(0), { error: "untrusted", rule: "TD-SIG-005" });
  await assert.rejects(reader(objects, { record: one.record }).read(0), { rule: "TD-SIG-005" });
  await assert.rejects(reader(objects, { held: one.held }).read(0), { rule: "TD-SIG-005" });
  await new Reader(new MemoryStore(objects), { held: one.held }).read(0); // without keys
  const two = reader(objects, { record: one.record, back: true });
  await two.read(0);
  assert.equal(two.record.version, 0);
  two.options.back = false;
  await two.read(1);
});

test("a version that was held is the same for ever", async () => {
  const objects = chain();
  const one = reader(objects);
  await one.read(1);
  const changed = JSON.parse(Buffer.from(objects.get(manifest(1))));
  objects.set(manifest(1), utf8(JSON.stringify({ ...changed, fingerprint: "0".repeat(16) })));
  signObject(objects, manifest(1));
  await assert.rejects(one.read(1), { error: "untrusted", rule: "TD-SIG-006" });
  assert.equal(one.held.version, 1);
});

test("the newest version may be no older than the user says", async () => {
  const { created } = JSON.parse(Buffer.from(appendix().get(manifest(2))));
  const age = (Date.now() - Date.parse(created)) / 1000;
  await reader(chain(), { maxAge: age + 3600 }).read();
  await assert.rejects(reader(chain(), { maxAge: age - 3600 }).read(), { error: "untrusted", rule: "TD-SIG-008" });
  await reader(chain(), { maxAge: age - 3600 }).read(2);
});

test("a hint that names a version without signature names nothing", async () => {
  const objects = chain([manifest(2)]);
  const { chain: id } = JSON.parse(Buffer.from(objects.get("chain.json")));
  objects.set("latest.json", utf8(JSON.stringify({ tensordelta: "1.0-rc.1", chain: id, version: 2 })));
  const store = Object.assign(new MemoryStore(objects), { lists: false });
  const one = new Reader(store, { keys: [FIRST] });
  await one.read(1);
  await one.read();
  assert.equal(one.held.version, 1);
  await assert.rejects(one.read(2), { error: "untrusted", rule: "TD-SIG-012" });
});

test("a copy of a dropped manifest counts with the signature of what it copies", async () => {
  const objects = chain();
  const store = new MemoryStore(objects);
  const list = store.list.bind(store);
  store.list = async (prefix) => {
    const names = await list(prefix);
    if (prefix === "manifests/" && objects.has(manifest(1))) {
      objects.set(`retired/${manifest(1)}`, objects.get(manifest(1)));
      objects.delete(manifest(1));
    }
    return names;
  };
  const one = new Reader(store, { keys: [FIRST] });
  await one.read(1);
  assert.equal(one.held.version, 1);
});
