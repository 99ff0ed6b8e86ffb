/** Following a chain over HTTP by its hint (sections 10.2 and 12.5). */
import { test } from "node:test";
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { HttpStore, MemoryStore, Reader, follow } from "../src/index.js";
import { HINT, chain } from "./hinted.js";
import { sha } from "./writer.js";

/** For what would wait for ever if it failed. */
const PATIENT = { timeout: 120_000 };

/** Serves objects; `answer` may answer in place of them, and `asked` has what was asked for. */
async function served(objects, work, answer = () => false) {
  const asked = [];
  const server = createServer((request, response) => {
    const name = request.url.slice("/run/".length);
    asked.push(`${request.method} ${name}`);
    const body = objects.get(name);
    if (answer(name, request, response)) return;
    if (body === undefined) {
      response.writeHead(404).end();
      return;
    }
    const tag = `"${sha(body)}"`;
    response.setHeader("ETag", tag);
    if (request.headers["if-none-match"] === tag) response.writeHead(304).end();
    else response.end(body);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    await work(`http://127.0.0.1:${server.address().port}/run`, asked);
  } finally {
    server.close();
    server.closeAllConnections();
  }
}

test("the hint leads to the newest version, by GET alone", () => served(chain(2, ["000000000002-full"]), async (url, asked) => {
  const reader = new Reader(new HttpStore(url));
  const { route } = await reader.read();
  assert.deepEqual(route, ["shortcuts/000000000002-full.json"]);
  assert.equal(reader.held.version, 2);
  assert.ok(asked.every((each) => each.startsWith("GET ")));
  assert.ok(!asked.some((each) => each.endsWith("/")));
}));

test("a look at an unchanged hint is answered with 304", () => {
  const statuses = [];
  const note = (name, request, response) => {
    if (name === HINT) response.on("finish", () => statuses.push(response.statusCode));
    return false;
  };
  return served(chain(1), async (url) => {
    const reader = new Reader(new HttpStore(url));
    for (let i = 0; i < 3; i++) await reader.read();
    assert.equal(reader.held.version, 1);
    assert.deepEqual(statuses, [200, 304, 304]);
  }, note);
});

test("a refusal proves no absence", () => {
  const refuse = (name, _, response) => name === "manifests/000000000001.json" && response.writeHead(403).end();
  return served(chain(2), async (url) => {
    await assert.rejects(new Reader(new HttpStore(url)).read(), { name: "StoreFailure" });
  }, refuse);
});

test("redirects are followed five times, and never to plain HTTP elsewhere", () => {
  let times = 5;
  let place = null;
  const lead = (name, request, response) => {
    if (name !== "chain.json" || times === 0) return false;
    times--;
    response.writeHead(302, { location: place ?? request.url }).end();
    return true;
  };
  return served(chain(1), async (url) => {
    const store = new HttpStore(url);
    assert.ok(await store.get("chain.json"));
    times = 6;
    await assert.rejects(store.get("chain.json"), /more than 5 redirects/);
    [times, place] = [1, "http://example.invalid/chain.json"];
    await assert.rejects(store.get("chain.json"), /not https/);
  }, lead);
});

/** What `follow` sees, until there are so many. */
async function seen(reader, count, each = () => {}) {
  const abort = new AbortController();
  const list = [];
  for await (const one of follow(reader, { seconds: 0, signal: abort.signal })) {
    list.push(one.failure ? one.failure.error ?? one.failure.name : one.version);
    each(list);
    if (list.length === count) abort.abort();
  }
  return list;
}

test("version after version is read, as the hint names them", PATIENT, () => {
  const objects = chain(0);
  return served(objects, async (url) => {
    const reader = new Reader(new HttpStore(url));
    const next = (list) => objects.set(HINT, chain(list.length).get(HINT));
    assert.deepEqual(await seen(reader, 3, next), [0, 1, 2]);
    assert.equal(reader.held.version, 2);
  });
});

test("a look at an unchanged hint is one request", PATIENT, () => {
  const abort = new AbortController();
  let since = null; // what was asked for since the version is held
  const note = (name) => {
    since?.push(name);
    if (since?.length === 6) abort.abort();
    return false;
  };
  return served(chain(1), async (url) => {
    for await (const { version } of follow(new Reader(new HttpStore(url)), { seconds: 0, signal: abort.signal })) {
      assert.equal(version, 1);
      since = [];
    }
    assert.deepEqual([...new Set(since)], [HINT]);
  }, note);
});

test("a look that comes to nothing leaves what is held, and the next one tries again", PATIENT, () => {
  const objects = chain(0);
  const pack = JSON.parse(Buffer.from(objects.get("manifests/000000000001.json"))).packs[0].path;
  const bytes = objects.get(pack);
  let refuse = false;
  const answer = (name, _, response) => refuse && name === pack && response.writeHead(503).end();
  return served(objects, async (url) => {
    const reader = new Reader(new HttpStore(url));
    const list = await seen(reader, 4, ({ length }) => {
      if (length === 1) {
        objects.set(HINT, chain(1).get(HINT));
        objects.set(pack, bytes.map((x) => x ^ 1));
      }
      if (length > 1) assert.equal(reader.held.version, length === 4 ? 1 : 0);
      refuse = length === 2;
      if (length === 3) objects.set(pack, bytes);
    });
    assert.deepEqual(list, [0, "integrity", "StoreFailure", 1]);
  }, answer);
});

test("where there is a listing, the hint decides nothing", PATIENT, async () => {
  const objects = chain(0);
  const two = objects.get("manifests/000000000002.json");
  objects.delete("manifests/000000000002.json");
  const reader = new Reader(new MemoryStore(objects));
  assert.deepEqual(await seen(reader, 2, () => objects.set("manifests/000000000002.json", two)), [1, 2]);
});

test("a hint goes back nowhere", () => {
  const objects = chain(2);
  return served(objects, async (url) => {
    const reader = new Reader(new HttpStore(url));
    await reader.read();
    objects.set(HINT, chain(0).get(HINT));
    await reader.read();
    assert.equal(reader.held.version, 2);
  });
});
