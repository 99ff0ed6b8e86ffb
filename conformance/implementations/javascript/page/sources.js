/** Where a chain comes from: the sample, a folder, a server. Nothing is sent anywhere but GET requests to that server. */
import { FileStore, HttpStore, MemoryStore, TooLong, namesFromHint } from "../src/index.js";
import { LOOPBACK } from "../src/store.js";
import { bytesText, counted } from "./figures.js";
import { Slip } from "./sentences.js";

/** Objects up to this size are remembered, and so many bytes of them together. */
const SMALL = 2 ** 20;
const REMEMBERED = 2 ** 26;
/** Milliseconds of work after which the page is drawn. */
const FRAME = 30;

/**
 * A store as the page reads it: it reports what is read to the work at hand, which may end it, lets the browser draw in
 * between, and remembers small objects, which never change but for the hint.
 */
export class PageStore {
  /** @param {import("../src/store.js").Store} store */
  constructor(store) {
    this.store = store;
    this.lists = store.lists;
    /** @type {import("./work.js").Work|null} */
    this.work = null;
    this.small = new Map();
    this.room = REMEMBERED;
    this.drawn = performance.now();
  }

  async get(name, limit = Infinity) {
    this.work?.signal.throwIfAborted();
    if (this.store instanceof HttpStore) this.store.signal = this.work?.signal ?? null;
    let bytes = this.small.get(name);
    if (bytes?.length > limit) throw new TooLong(name, limit);
    if (!bytes) {
      const asked = this.store.get(name, limit);
      bytes = await (this.work ? this.work.unlessEnded(asked) : asked);
    }
    if (bytes && bytes.length <= Math.min(SMALL, this.room) && name !== "latest.json" && !this.small.has(name)) {
      this.small.set(name, bytes);
      this.room -= bytes.length;
    }
    this.work?.read(bytes?.length ?? 0);
    await this.breathe();
    return bytes;
  }

  /** Lets the browser draw and hear the person, if it is time. */
  async breathe() {
    if (performance.now() - this.drawn <= FRAME) return;
    await new Promise((next) => setTimeout(next));
    this.drawn = performance.now();
    this.work?.signal.throwIfAborted();
  }

  list(prefix) {
    return this.store.list(prefix);
  }
}

/**
 * @typedef {{title: string, store: PageStore, note: string, url: string|null, unlisted: boolean, more: boolean,
 *   objects: Map<string, Uint8Array>|null}} Source  note: something to know about it; unlisted: nothing proves that all
 *   versions were found; more: older versions were left out; objects: of the sample
 */
const source = (title, store, more = {}) => ({
  title, store: new PageStore(store), note: "", url: null, unlisted: false, more: false, objects: null, ...more,
});

// -- the sample -------------------------------------------------------------------------------------------------------

const bytesOf = (content) => (typeof content === "string" ? new TextEncoder().encode(content)
  : Uint8Array.from(atob(content.base64), (c) => c.charCodeAt(0)));

export async function sample() {
  const answer = await fetch(new URL("sample.json", import.meta.url));
  const objects = new Map(Object.entries(await answer.json()).map(([name, content]) => [name, bytesOf(content)]));
  return ofObjects("The sample chain", objects);
}

function ofObjects(title, objects) {
  const size = [...objects.values()].reduce((sum, { length }) => sum + length, 0);
  const note = `A small network (12 blocks, bfloat16) while it learns to add, published after each step of AdamW: ${counted(objects.size, "object")}, ${bytesText(size)}.`;
  return source(title, new MemoryStore(objects), { note, objects });
}

/** The sample with one bit of one pack flipped. @param {Map<string, Uint8Array>} objects @param {string} pack its name */
export function damaged(objects, pack) {
  const bytes = objects.get(pack).slice();
  bytes[bytes.length >> 1] ^= 1;
  return ofObjects("The sample chain, with one bit flipped", new Map([...objects, [pack, bytes]]));
}

// -- a folder ---------------------------------------------------------------------------------------------------------

/** All files below what was dropped, by path. @param {FileSystemEntry[]} entries @returns {Promise<Map<string, File>>} */
export async function droppedFiles(entries) {
  const files = new Map();
  for (const entry of entries) await walk(entry, entry.name, files);
  return files;
}

async function walk(entry, path, files) {
  if (entry.isFile) {
    files.set(path, await new Promise((resolve, reject) => entry.file(resolve, reject)));
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (part.length === 0) return;
    for (const child of part) await walk(child, `${path}/${child.name}`, files);
  }
}

/** Folders in which there is a chain.json, the outermost first. */
function rootsOf(paths) {
  const chains = paths.filter((path) => path === "chain.json" || path.endsWith("/chain.json"));
  return chains.map((path) => path.slice(0, -"chain.json".length)).sort((a, b) => a.length - b.length || (a < b ? -1 : 1));
}

/** @param {Map<string, File>} files by path @returns {Source} */
export function folder(files) {
  const paths = [...files.keys()];
  if (paths.length === 0) throw new Slip("This folder is empty.", "Give the folder that contains chain.json and manifests.");
  const [root, ...others] = rootsOf(paths);
  if (root === undefined) throw new Slip(`${whatItIs(paths)}: there is no chain.json.`, "Give the folder that tensordelta publish wrote to; it contains chain.json and manifests.");
  const inside = new Map([...files].filter(([path]) => path.startsWith(root)).map(([path, file]) => [path.slice(root.length), file]));
  const note = others.length === 0 ? "" : `There ${others.length === 1 ? "is another chain" : `are ${others.length} other chains`} in what you gave: ${others.slice(0, 3).join(", ")}`;
  return source(root.slice(0, -1) || "The folder", new FileStore(inside), { note });
}

function whatItIs(paths) {
  if (paths.length === 1 && !paths[0].includes("/")) return `${paths[0]} is a file, not the folder of a chain`;
  if (paths.some((path) => path.includes(".tensordelta/"))) return "This is a folder with the weights of one version, not a chain";
  const weights = paths.find((path) => path.endsWith(".safetensors"));
  if (weights) return `This folder is not a chain but has weights (${weights.split("/").at(-1)})`;
  return "This folder is not a chain";
}

// -- a server ---------------------------------------------------------------------------------------------------------

/** The URL of a chain as a person types or pastes it. @returns {string} */
export function addressOf(text) {
  const typed = text.trim().replace(/\/(chain|latest)\.json$/, "");
  const example = "It looks like https://example.com/run-7.";
  if (typed === "") throw new Slip("No address was given.", example);
  let url;
  try {
    url = new URL(typed);
  } catch {
    throw new Slip(`“${typed}” is not an address.`, example);
  }
  if (url.protocol === "http:" && !LOOPBACK.has(url.hostname)) throw new Slip("Over http anybody on the way can change what you see.", "Use https; http is for servers on this machine.");
  if (url.protocol !== "https:" && url.protocol !== "http:") throw new Slip(`This page cannot read ${url.protocol}//.`, `Give the https address of the same folder. ${example}`);
  if (url.username || url.password) throw new Slip("This page sends no user name and no password.", "Download the chain and drop its folder here.");
  if (url.search || url.hash) throw new Slip("An address with ? or # names no folder.", example);
  return url.href.replace(/\/$/, "");
}

/** @param {string} url @param {import("./work.js").Work} work @returns {Promise<Source>} */
export async function server(url, work, options) {
  const http = new HttpStore(url);
  const unlisted = new PageStore(http);
  unlisted.work = work;
  const { names, newest, more } = await namesFromHint(unlisted, {
    ...options, progress: (found, version) => work.count(found, `version ${version}`),
  });
  const store = new PageStore(new HttpStore(url, names));
  // What has been read already is not fetched again.
  store.small = unlisted.small;
  store.room = unlisted.room;
  const note = `latest.json names version ${newest}.`;
  return { ...source(url, http), store, note, url, unlisted: true, more };
}
