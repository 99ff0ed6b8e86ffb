/** Copies of dropped manifests and shortcuts (section 13): a reader that has seen a name finds its bytes. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { MemoryStore, Reader } from "../src/index.js";
import { appendix } from "./spec.js";

/** A store of which a collector drops objects right after they were listed. */
function dropping(objects, names, { copy = true } = {}) {
  const store = new MemoryStore(objects);
  const list = store.list.bind(store);
  store.list = async (prefix) => {
    const found = await list(prefix);
    for (const name of names.filter((each) => each.startsWith(prefix) && objects.has(each))) {
      if (copy) objects.set(`retired/${name}`, objects.get(name));
      objects.delete(name);
    }
    return found;
  };
  return store;
}

const MANIFEST = "manifests/000000000001.json";

test("a manifest that goes while it is read is found under retired/", async () => {
  const reader = new Reader(dropping(appendix(), [MANIFEST]));
  await reader.read(1);
  assert.equal(reader.held.version, 1);
});

test("a shortcut too", async () => {
  const name = "shortcuts/000000000002-full.json";
  const reader = new Reader(dropping(appendix(), [name, "manifests/000000000000.json"], { copy: true }));
  const { route } = await reader.read(2);
  assert.equal(reader.held.version, 2);
  assert.ok(route.length > 0);
  const without = appendix();
  for (const each of ["manifests/000000000000.json", MANIFEST]) without.delete(each);
  assert.deepEqual((await new Reader(dropping(without, [name])).read(2)).route, [name]);
});

test("one that has gone without a copy, and one that was not listed, does not exist", async () => {
  await assert.rejects(new Reader(dropping(appendix(), [MANIFEST], { copy: false })).read(1), { error: "missing" });
  const objects = appendix();
  objects.set(`retired/${MANIFEST}`, objects.get(MANIFEST));
  objects.delete(MANIFEST);
  await assert.rejects(new Reader(new MemoryStore(objects)).read(1), { error: "missing" });
});
