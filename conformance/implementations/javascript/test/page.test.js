/** The page's own code, with a document that has what it uses of one; browser.test.js has a real one. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { readFileSync } from "node:fs";
import { HINT, chain } from "./hinted.js";

class Element extends EventTarget {
  constructor() {
    super();
    this.children = [];
    this.value = "";
    this.textContent = "";
    this.disabled = false;
  }

  append(...children) {
    this.children.push(...children);
  }

  replaceChildren(...children) {
    this.children = children;
  }
}

/** The elements that index.html gives an id, with their values. */
function page() {
  const html = readFileSync(new URL("../index.html", import.meta.url), "utf8");
  const elements = new Map();
  for (const [tag, id] of html.matchAll(/<[^>]*\bid="([^"]+)"[^>]*>/g)) {
    const element = new Element();
    element.value = /\bvalue="([^"]*)"/.exec(tag)?.[1] ?? "";
    element.disabled = /\bdisabled\b/.test(tag);
    elements.set(id, element);
  }
  return elements;
}

const until = async (done) => {
  while (!done()) await new Promise((next) => setTimeout(next, 5));
};

const elements = page();
globalThis.document = Object.assign(new EventTarget(), {
  getElementById: (id) => elements.get(id) ?? assert.fail(`no element ${id}`),
  createElement: () => new Element(),
});
await import("../page.js");
const $ = (id) => elements.get(id);
const click = (id) => $(id).dispatchEvent(new Event("click"));
const rows = (id) => $(id).children.map(({ children }) => children.map(({ textContent }) => String(textContent)));

test("a chain on a server is followed until it is stopped", { timeout: 120_000 }, async (context) => {
  const objects = chain(1);
  const server = createServer((request, response) => {
    const body = objects.get(request.url.slice("/run/".length));
    if (body) response.end(body);
    else response.writeHead(404).end();
  });
  await new Promise((ready) => server.listen(0, "127.0.0.1", ready));
  context.after(() => {
    server.close();
    server.closeAllConnections();
  });
  $("url").value = `http://127.0.0.1:${server.address().port}/run`;
  $("seconds").value = "0.01";
  click("follow");
  await until(() => rows("followed").length === 1);
  assert.equal($("stop").disabled, false);
  objects.set(HINT, chain(2).get(HINT));
  await until(() => rows("followed").length === 2);
  assert.deepEqual(rows("followed").map(([version]) => version), ["1", "2"]);
  assert.equal(rows("followed")[1][4], "fingerprint e7d450450474db78");
  assert.equal($("following").textContent, "Version 2 is held.");
  click("stop");
  assert.equal($("stop").disabled, true);

  $("keys").value = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
  click("follow");
  await until(() => /^\S+: untrusted: chain\.json/.test($("following").textContent));
  assert.match($("following").textContent, /what is held stays: nothing\.$/);
  $("keys").value = "none";
  click("follow");
  await until(() => /no public key/.test($("following").textContent));
  assert.equal($("stop").disabled, true);
  $("keys").value = "";
});

test("a folder that is picked is shown and verified", { timeout: 120_000 }, async () => {
  const files = [...chain(2)].map(([name, bytes]) => Object.assign(new Blob([bytes]), { webkitRelativePath: `run/${name}` }));
  const event = new Event("change");
  Object.defineProperty(event, "target", { value: { files } });
  $("pick").dispatchEvent(event);
  await until(() => !$("verify").disabled);
  assert.match($("status").textContent, /^Chain .*3 versions, 2 shortcuts\.$/);
  assert.equal(rows("versions").length, 5);
  click("verify");
  await until(() => /fault/.test($("status").textContent));
  assert.equal($("status").textContent, "No fault found.");
});
