/** The library in a real browser, over HTTP; page.test.js has the page. Where there is no Chromium, it is skipped. */
import { test } from "node:test";
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { createServer } from "node:http";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { verify } from "../src/index.js";
import { FolderStore, nodeDigest } from "../src/node.js";
import { chromium } from "./chromium.js";
import { chain } from "./hinted.js";
import { casesOf } from "./vectors.js";

const HERE = fileURLToPath(new URL("..", import.meta.url));
const AREAS = ["chains", "frames", "order", "packs", "positions", "shortcuts", "values"];
const TYPES = { html: "text/html", js: "text/javascript", json: "application/json" };

/** Cases whose chain a verifier can judge without anything beside it; their chains are written below a folder. */
function cases(folder) {
  const found = [];
  for (const area of AREAS) {
    for (const half of [`${area}/valid`, `${area}/invalid`]) {
      for (const { id, verify, needs, flags, files } of casesOf(half)) {
        if (!verify || needs.length > 0 || flags.length > 0) continue;
        const root = `/vectors/${half}/${id}/chain/`;
        const names = [...files.keys()].filter((name) => name.startsWith("chain/")).map((name) => name.slice(6));
        if (names.length > 0 && names.every((name) => /^[\w./-]+$/.test(name))) {
          for (const name of names) {
            const path = join(folder, root, name);
            mkdirSync(dirname(path), { recursive: true });
            writeFileSync(path, files.get(`chain/${name}`));
          }
          found.push({ id, root, names, faults: verify.faults });
        }
      }
    }
  }
  return found;
}

/** The cases of following that need no status but 200 and 404; nothing is held. */
function hinted(folder) {
  const found = [];
  for (const { id, steps: [step], files } of casesOf("follow/valid")) {
    if (step.serve.status) continue;
    const root = `/vectors/follow/${id}/chain/`;
    for (const [name, data] of files) {
      if (!name.startsWith("chain/")) continue;
      const path = join(folder, root, name.slice(6));
      mkdirSync(dirname(path), { recursive: true });
      writeFileSync(path, data);
    }
    found.push({ id, root });
  }
  return found;
}

function serve(folder, work, done) {
  const objects = chain(2);
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url, "http://localhost");
    if (pathname.startsWith("/appendix/")) {
      const body = objects.get(pathname.slice("/appendix/".length));
      response.statusCode = body ? 200 : 404;
      response.end(body);
      return;
    }
    if (request.method === "POST") {
      const parts = [];
      request.on("data", (part) => parts.push(part));
      request.on("end", () => {
        response.end();
        done(JSON.parse(Buffer.concat(parts).toString("utf8")));
      });
      return;
    }
    try {
      const body = pathname === "/work.json" ? JSON.stringify(work)
        : readFileSync(join(pathname.startsWith("/vectors/") ? folder : HERE, pathname));
      response.setHeader("content-type", TYPES[pathname.split(".").pop()] ?? "application/octet-stream");
      response.end(body);
    } catch {
      response.statusCode = 404;
      response.end();
    }
  });
  return new Promise((ready) => server.listen(0, "127.0.0.1", () => ready(server)));
}

async function run(command, folder, work) {
  const profile = mkdtempSync(join(tmpdir(), "tensordelta-browser-"));
  let child;
  let server;
  try {
    return await new Promise((resolve, reject) => {
      serve(folder, work, resolve).then((listening) => {
        server = listening;
        const address = `http://127.0.0.1:${server.address().port}/test/browser.html`;
        const options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", `--user-data-dir=${profile}`];
        child = spawn(command, [...options, address], { stdio: "ignore" });
        child.on("error", reject);
        child.on("exit", (code) => reject(new Error(`the browser ended with ${code}`)));
        setTimeout(() => reject(new Error("the browser has not answered")), 600_000).unref();
      }, reject);
    });
  } finally {
    if (child && child.exitCode === null) {
      await new Promise((ended) => {
        child.removeAllListeners("exit").on("exit", ended);
        child.kill("SIGKILL");
      });
    }
    server?.closeAllConnections();
    server?.close();
    rmSync(profile, { recursive: true, force: true, maxRetries: 20, retryDelay: 100 });
  }
}

const command = chromium();
test("a browser verifies chains, and follows them", { skip: command === null && "no Chromium here" }, async (context) => {
  const folder = mkdtempSync(join(tmpdir(), "tensordelta-vectors-"));
  context.after(() => rmSync(folder, { recursive: true }));
  const all = cases(folder);
  assert.ok(all.length > 300);
  const chains = hinted(folder);
  const result = await run(command, folder, { chains: all, hinted: chains });
  assert.equal(result.error, undefined);
  assert.equal(result.followed["follow-from-nothing"], 2);
  assert.equal(result.followed["follow-not-past-the-hint"], 1);
  assert.equal(result.followed["follow-nothing-absent"], "missing");
  assert.equal(Object.keys(result.followed).length, chains.length);
  // What Node says is judged by the suite.
  for (const { id, root, faults } of all) {
    const here = await verify(new FolderStore(join(folder, root)), { digest: nodeDigest });
    assert.deepEqual(result.faults[id], here.map(({ error, object }) => ({ error, object })), id);
    assert.equal(here.length === 0, faults.length === 0, id);
  }
  assert.equal(result.slices, 2);
  assert.equal(result.signature, true);
});
