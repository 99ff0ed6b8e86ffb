#!/usr/bin/env node
/**
 * The adapter of the conformance suite (ADAPTER.md, protocol 1): one JSON object a line on standard input, one answer a
 * line on standard output; or `adapter.js OP REQUEST` once.
 */
import { rm } from "node:fs/promises";
import { createInterface } from "node:readline";
import { readFileSync } from "node:fs";
import { DEFAULT_MEMORY, GroupFailure, Holder, HttpStore, Reader, Rejection, StoreFailure, recordOf, verify } from "./src/index.js";
import { FolderStore, folderPlace, loadState, nodeDigest, nodeVerify, saveState, sourcesFor } from "./src/node.js";
import { HolderGroup } from "./holders.js";

const { version } = JSON.parse(readFileSync(new URL("./package.json", import.meta.url), "utf8"));

const HELLO = {
  protocol: 1,
  name: "tensordelta-js",
  version,
  spec: "1.0-rc.1",
  roles: ["reader", "verifier"],
  levels: ["reader-core", "reader-exponent", "chain", "follow", "partial", "slice", "sources", "verifier", "signed"],
  capabilities: ["prepare", "undo", "memory", "places", "pin", "slice-fit", "slice-part"],
  limits: { memory: DEFAULT_MEMORY },
};

/** What a request says to Readers and Verifiers alike. */
const options = ({ memory, places, sources, keys, threshold }) => ({
  memory: memory ?? DEFAULT_MEMORY,
  digest: nodeDigest,
  verifySignature: nodeVerify,
  places: (places ?? []).map(folderPlace),
  sources: sourcesFor(sources ?? []),
  keys: keys ?? [],
  threshold: threshold ?? 1,
});

/** What outlives a request in the long-lived form. */
class Adapter {
  constructor() {
    this.held = null;
    /** The holders of the last request that had some. @type {HolderGroup|null} */
    this.group = null;
    this.prepared = null;
    /** The chain ids of roots read with the state held now. */
    this.pins = new Map();
    /** Of the newest version that was held; for requests with keys. */
    this.record = null;
  }

  /** Takes what a request says is held. */
  async take({ held, tensors }) {
    if (held === undefined) return;
    this.pins.clear();
    this.held = null;
    if (!held) return;
    this.held = await loadState(held.state, { version: held.version ?? null, only: tensors ?? null });
    const record = recordOf(this.held);
    if (record && !(this.record?.version > record.version)) this.record = record;
  }

  /** What a Reader of a request gets. */
  start(request) {
    const { chain } = request;
    return [/^https?:/.test(chain) ? new HttpStore(chain) : new FolderStore(chain), {
      ...options(request),
      pin: request.pin ?? this.pins.get(chain) ?? null,
      record: this.record,
      back: request.back ?? false,
    }];
  }

  /** A Reader for a request, with what is held now. */
  async reader(request) {
    await this.take(request);
    const [store, more] = this.start(request);
    return new Reader(store, { ...more, held: this.held, tensors: request.tensors ?? null });
  }

  async write(out, state = this.held) {
    if (!out) return;
    if (state) await saveState(state, out);
    else await rm(out, { force: true });
  }

  hello() {
    return HELLO;
  }

  /** The same for a group of holders. */
  async readSlices(request) {
    try {
      const [store, more] = this.start(request);
      const make = (each) => new Holder(store, { ...more, ...each });
      if (request.held === undefined && this.group) {
        this.group.handOver(make);
      } else {
        this.group = null;
        await this.take({ held: request.held ?? null });
        this.group = new HolderGroup(this.held, request, make);
        this.held = null;
      }
      this.group.alter(request.unlike ?? []);
      await this.group.prove();
      this.group.alter(request.altered ?? []);
      return { version: await this.group.read(request.to ?? null) };
    } finally {
      await this.write(request.out, this.group?.state() ?? null);
    }
  }

  async read(request) {
    if (request.holders) return this.readSlices(request);
    try {
      const reader = await this.reader(request);
      const { to } = await reader.read(request.to ?? null);
      this.held = reader.held;
      this.record = reader.record;
      this.pins.set(request.chain, reader.pinned);
      return { version: to.version };
    } finally {
      await this.write(request.out);
    }
  }

  async verify(request) {
    const faults = await verify(new FolderStore(request.chain), options(request));
    return { faults };
  }

  async prepare(request) {
    const reader = await this.reader(request);
    this.prepared = { update: await reader.prepare(request.to ?? null), tensors: request.tensors ?? null };
    return { version: this.prepared.update.to.version };
  }

  async apply(request) {
    return this.switch(request, (reader, update) => reader.apply(update));
  }

  async undo(request) {
    return this.switch(request, (reader, update) => reader.undo(update));
  }

  async switch(request, change) {
    try {
      if (!this.prepared) throw new Error("nothing is prepared");
      const reader = new Reader(null, { held: this.held, tensors: this.prepared.tensors });
      change(reader, this.prepared.update);
      this.held = reader.held;
      return { version: this.held ? this.held.version : null };
    } finally {
      await this.write(request.out);
    }
  }
}

const OPERATIONS = new Set(["hello", "read", "verify", "prepare", "apply", "undo"]);

/** @returns {Promise<object>} the answer, without id */
async function answer(adapter, op, request) {
  if (!OPERATIONS.has(op)) return { unsupported: `${op} is not built` };
  try {
    return { ok: true, ...(await adapter[op](request)) };
  } catch (e) {
    if (e instanceof Rejection) return e.toJSON();
    if (e instanceof StoreFailure || e instanceof GroupFailure) return { failed: e.message };
    // No rejection of the format: a name that its table lacks, so that nobody takes it for one.
    process.stderr.write(`${e.stack}\n`);
    return { error: "failed", message: e.message };
  }
}

async function serve() {
  const adapter = new Adapter();
  for await (const line of createInterface({ input: process.stdin, crlfDelay: Infinity })) {
    if (line.trim() === "") continue;
    const request = JSON.parse(line);
    const out = { id: request.id, ...(await answer(adapter, request.op, request)) };
    process.stdout.write(`${JSON.stringify(out)}\n`);
  }
}

async function once(op, text) {
  let request;
  try {
    request = JSON.parse(text);
    if (request === null || typeof request !== "object") throw new Error("no object");
  } catch {
    process.stderr.write("usage: adapter.js [OP REQUEST], REQUEST being a JSON object\n");
    return 2;
  }
  const out = await answer(new Adapter(), op, request);
  process.stdout.write(`${JSON.stringify(out)}\n`);
  if (out.ok) return 0;
  if (out.unsupported !== undefined) return 3;
  return out.error === "failed" ? 4 : 1;
}

const words = process.argv.slice(2);
if (words.length === 0) await serve();
else if (words.length === 2) process.exitCode = await once(...words);
else {
  process.stderr.write("usage: adapter.js [OP REQUEST], REQUEST being a JSON object\n");
  process.exitCode = 2;
}
