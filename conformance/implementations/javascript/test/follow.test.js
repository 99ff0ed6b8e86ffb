/** Following a chain over HTTP by its hint (sections 10.2 and 12.5). */
import { test } from "node:test";
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { HttpStore, Reader } from "../src/index.js";
import { appendix } from "./spec.js";

const HINT = "latest.json";

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
    const tag = `"${body.length}-${body.at(-3)}"`;
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

const bytes = (value) => new TextEncoder().encode(JSON.stringify(value));

function chain(version, shortcuts) {
  const objects = appendix();
  const { chain: id } = JSON.parse(new TextDecoder().decode(objects.get("chain.json")));
  objects.set(HINT, bytes({ tensordelta: "1.0-rc.1", chain: id, version, shortcuts }));
  return objects;
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
