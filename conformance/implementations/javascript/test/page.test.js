/** The page in a real browser, driven as a person does. Where there is no Chromium, all of it is skipped. */
import { after, before, test } from "node:test";
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Browser, chromium } from "./chromium.js";
import { HINT, chain } from "./hinted.js";
import { casesOf } from "./vectors.js";
import { Chain } from "./writer.js";

const HERE = fileURLToPath(new URL("..", import.meta.url));
const TYPES = { html: "text/html", js: "text/javascript", json: "application/json", css: "text/css" };
const command = chromium();
const skip = command === null && "no Chromium here: set CHROMIUM to the command of one";

/** @type {Browser} */
let browser;
/** The page's own server, and one of chains, which lets other pages read. */
let page;
let chains;
/** What the chains' server answers: objects by path, or a status. @type {Map<string, Uint8Array|number>} */
const answers = new Map();
const folder = mkdtempSync(join(tmpdir(), "tensordelta-page-"));

/** For a request that is never answered. */
const NEVER = null;

function listen(answer) {
  const server = createServer((request, response) => {
    const body = answer(decodeURIComponent(new URL(request.url, "http://localhost").pathname), response);
    if (body === NEVER) return;
    if (typeof body === "number") response.writeHead(body);
    response.end(typeof body === "number" ? "" : body);
  });
  return new Promise((ready) => server.listen(0, "127.0.0.1", () => ready(Object.assign(server, { origin: `http://127.0.0.1:${server.address().port}` }))));
}

function own(path, response) {
  const name = path === "/" ? "index.html" : path.slice(1);
  response.setHeader("content-type", TYPES[name.split(".").pop()] ?? "application/octet-stream");
  try {
    return readFileSync(join(HERE, name));
  } catch {
    return 404;
  }
}

before(async () => {
  if (skip) return;
  page = await listen(own);
  chains = await listen((path, response) => {
    if (!path.startsWith("/closed/")) response.setHeader("access-control-allow-origin", "*");
    response.setHeader("cache-control", path.endsWith(HINT) ? "no-cache" : "max-age=3600");
    return answers.has(path) ? answers.get(path) : 404;
  });
  browser = new Browser(command);
});

after(async () => {
  rmSync(folder, { recursive: true });
  await browser?.close();
  for (const server of [page, chains]) {
    server?.close();
    server?.closeAllConnections();
  }
});

/** The sample chain's objects. */
const sample = () => new Map(Object.entries(JSON.parse(readFileSync(join(HERE, "page/sample.json"), "utf8"))).map(([name, content]) =>
  [name, Buffer.from(content.base64 ?? content, content.base64 ? "base64" : "utf8")]));

function serve(at, objects) {
  for (const [name, bytes] of objects) answers.set(`${at}/${name}`, bytes);
  return `${chains.origin}${at}`;
}

function write(name, objects) {
  for (const [object, bytes] of objects) {
    const path = join(folder, name, object);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, bytes);
  }
  return join(folder, name);
}

const packOf = (objects, version) => JSON.parse(objects.get(`manifests/${String(version).padStart(12, "0")}.json`).toString()).packs[0].path;

function damage(objects, name) {
  const bytes = Uint8Array.from(objects.get(name));
  bytes[bytes.length >> 1] ^= 1;
  return objects.set(name, bytes);
}

const seen = (id) => `!document.getElementById("${id}").hidden`;
const rows = (tab) => tab.value(`[...document.querySelectorAll("#versions tbody tr")].map((row) => [...row.cells].map((cell) => cell.innerText.trim()))`);
const strips = (tab) => tab.value(`[...document.querySelectorAll("#strips tbody th")].map((cell) => cell.innerText)`);

async function verified(tab) {
  await tab.click("#verify");
  await tab.until(seen("verdict"));
  return tab.text("#verdict");
}

/** A test with a tab of its own, in which nothing may go wrong and nothing is sent but GET requests to known places. */
function inTab(title, options, act) {
  test(title, { skip, timeout: 600_000 }, async () => {
    const tab = await browser.open(`${page.origin}/${options.fragment ? options.fragment() : ""}`, options);
    await act(tab);
    assert.deepEqual(tab.complaints, []);
    for (const { method, url } of tab.requests) {
      assert.equal(method, "GET");
      assert.ok([page.origin, chains.origin].includes(new URL(url).origin) || url.startsWith("data:"), url);
    }
    await tab.close();
  });
}

inTab("the sample chain is a click away, and proven", {}, async (tab) => {
  await tab.click("#sample");
  await tab.until(seen("layers"));
  assert.match(await tab.text("#facts"), /Versions\s+33 \(0 to 32\)[^]*38 tensors, 27.9 kB[^]*BF16[^]*33 checkpoints take/);
  const table = await rows(tab);
  assert.equal(table.length, 33);
  assert.deepEqual(table[0].slice(0, 4), ["0", "nothing: it is full", "19.8 kB", "all"]);
  assert.equal(table[7][1], "version 6");
  assert.deepEqual((await strips(tab)).slice(0, 4), ["all weights", "lm_head.weight", "model.embed.weight", "model.layers.0.mlp.down.weight"]);
  const names = await strips(tab);
  assert.ok(names.indexOf("model.layers.2.norm.weight") < names.indexOf("model.layers.10.mlp.down.weight"));
  const verdict = await verified(tab);
  assert.match(verdict, /^No fault found: all 33 versions are proven\./);
  assert.match(verdict, /Proven[^]*Not proven[^]*Who wrote the chain/);
  assert.ok((await rows(tab)).every((cells) => cells[6].includes("proven")));
  const { length } = readFileSync(join(HERE, "page/sample.json"));
  assert.ok(length < 200_000);
});

inTab("one flipped bit is found, and what it spoils is named", {}, async (tab) => {
  await tab.click("#sample");
  await tab.until(seen("layers"));
  await tab.click("#damage");
  await tab.until(seen("verdict"));
  const verdict = await tab.text("#verdict");
  assert.match(verdict, /^1 fault: 24 of 33 versions are proven\./);
  assert.match(verdict, /The pack of version 7 is damaged\. Get this object again/);
  assert.match(verdict, /versions 0–6, 16–32/);
  assert.match(verdict, /Versions 7–15:/);
  const marks = (await rows(tab)).map((cells) => cells[6].includes("not proven"));
  assert.deepEqual(marks, Array.from({ length: 33 }, (_, version) => version >= 7 && version < 16));
});

inTab("the heat map is read with the keyboard, by layers, with a filter", {}, async (tab) => {
  await tab.press("Tab", "Enter");
  await tab.until(seen("layers"));
  assert.equal(await tab.value("document.activeElement.id"), "title");
  assert.equal(await tab.text("#readout"), "all weights, version 32: 20 of 13,968 words changed (0.143 %)");
  await tab.value(`document.querySelector("#strips canvas").focus()`);
  await tab.press("ArrowDown", "ArrowDown", "ArrowLeft");
  assert.match(await tab.text("#readout"), /^model\.embed\.weight, version 31: \d+ of 992 words changed/);
  assert.deepEqual(await tab.value(`(({ role, ariaValueNow, ariaValueText }) => [role, ariaValueNow, ariaValueText.slice(0, 11)])(document.activeElement)`),
    ["slider", "31", "version 31:"]);
  await tab.press("Home");
  assert.match(await tab.text("#readout"), /version 0: published in full/);
  await tab.press("ArrowRight");
  assert.match(await tab.text("#readout"), /version 1: 0 of 992 words changed/, "the embedding was frozen");
  await tab.click("#strips tbody tr:nth-child(5) canvas");
  assert.match(await tab.text("#readout"), /^model\.layers\.0\.mlp\.up\.weight, version 16:/);
  await tab.press("ArrowUp");
  assert.match(await tab.text("#readout"), /^model\.layers\.0\.mlp\.down\.weight, version 16:/);
  await tab.click("#by-layer");
  assert.deepEqual((await strips(tab)).slice(3, 6), ["model.layers.0", "model.layers.1", "model.layers.2"]);
  await tab.value(`document.getElementById("tensor-filter").focus()`);
  await tab.type("layers.1");
  assert.deepEqual(await strips(tab), ["model.layers.1", "model.layers.10", "model.layers.11"]);
  await tab.value(`(document.getElementById("sort").value = "changed", document.getElementById("sort").dispatchEvent(new Event("change")))`);
  assert.deepEqual(await strips(tab), ["model.layers.11", "model.layers.10", "model.layers.1"]);
});

inTab("the cells have the colours of their densities, in light and dark", {}, async (tab) => {
  await tab.click("#sample");
  await tab.until(seen("layers"));
  const pixel = (row, column) => tab.value(`[...document.querySelectorAll("#strips canvas")[${row}].getContext("2d").getImageData(${column}, 0, 1, 1).data].slice(0, 3).join()`);
  const colour = (name) => tab.value(`getComputedStyle(document.documentElement).getPropertyValue("--heat-${name}").match(/[0-9a-f]{2}/gi).map((pair) => parseInt(pair, 16)).join()`);
  for (const scheme of ["light", "dark"]) {
    await tab.scheme(scheme);
    const full = await colour("full");
    await tab.until(`matchMedia("(prefers-color-scheme: ${scheme})").matches`);
    while (await pixel(2, 0) !== full) await new Promise((next) => setTimeout(next, 20));
    assert.equal(await pixel(2, 1), await colour("none"));
    assert.ok(![full, await colour("none")].includes(await pixel(2, 20)));
  }
});

inTab("a chain on a server is opened by its address, over GET alone", {}, async (tab) => {
  const url = serve("/run", sample());
  await tab.click("#url");
  await tab.type(`${url}/`);
  await tab.press("Enter");
  await tab.until(seen("layers"));
  assert.equal(await tab.text("#title"), url);
  assert.equal((await rows(tab)).length, 33);
  const verdict = await verified(tab);
  assert.match(verdict, /^No fault found: all 33 versions are proven\./);
  assert.match(verdict, /That these are all versions: a web server lists nothing/);
  assert.equal(await tab.value("location.hash"), `#url=${encodeURIComponent(`${url}/`)}`);
});

inTab("an address in the fragment is opened at once", { fragment: () => `#url=${encodeURIComponent(serve("/run", sample()))}` }, async (tab) => {
  await tab.until(seen("layers"));
  assert.match(await tab.text("#facts"), /33 \(0 to 32\)/);
});

inTab("the way back leads to the start", {}, async (tab) => {
  await tab.click("#sample");
  await tab.until(seen("layers"));
  assert.equal(await tab.value("location.hash"), "#sample");
  await tab.value("history.back()");
  await tab.until(`document.getElementById("chain").hidden`);
  await tab.value("history.forward()");
  await tab.until(seen("layers"));
});

inTab("a chain is followed, version after version", {}, async (tab) => {
  const url = serve("/growing", chain(0));
  await tab.click("#url");
  await tab.type(url);
  await tab.press("Enter");
  await tab.until(seen("live"));
  assert.deepEqual((await rows(tab)).map(([version]) => version), ["0"]);
  await tab.value(`document.getElementById("seconds").value = "0.02"`);
  await tab.click("#follow");
  const followed = `[...document.querySelectorAll("#followed tbody tr")].map((row) => row.cells[0].innerText).join()`;
  await tab.until(`${followed} === "0"`);
  serve("/growing", chain(1));
  await tab.until(`${followed} === "1,0"`);
  serve("/growing", chain(2));
  await tab.until(`${followed} === "2,1,0"`);
  await tab.until(`document.querySelectorAll("#versions tbody tr").length === 3`);
  assert.equal(await tab.text("#followed tbody td:last-child"), "e7d450450474db78");
  assert.equal(await tab.text("#following"), "Version 2 is held, and its fingerprint is right.");
  answers.set(`/growing/${HINT}`, 503);
  await tab.until(`/answered 503\\. Try again in a while[^]*What is held stays: version 2/.test(document.getElementById("following").innerText)`);
  await tab.click("#stop");
  assert.equal(await tab.value(`document.getElementById("stop").disabled`), true);
});

const FAILURES = [
  ["nothing there", () => `${chains.origin}/nothing`, /There is no chain here: chain\.json is missing\. Give the folder/],
  ["no hint", () => serve("/unhinted", [...sample()].filter(([name]) => name !== HINT)), /The chain has no latest\.json[^]*drop its folder/],
  ["a login", () => {
    answers.set("/login/chain.json", 403);
    return `${chains.origin}/login`;
  }, /127\.0\.0\.1:\d+ answered 403: it wants a login/],
  ["no CORS", () => serve("/closed", sample()), /127\.0\.0\.1:\d+ does not answer, or does not let this page read\.[^]*Access-Control-Allow-Origin/],
  ["no address", () => "run-7", /“run-7” is not an address\. It looks like https/],
  ["plain http", () => "http://example.com/run", /Over http anybody on the way[^]*Use https/],
];
for (const [what, address, sentence] of FAILURES) {
  inTab(`one sentence and one advice: ${what}`, {}, async (tab) => {
    await tab.click("#url");
    await tab.type(address());
    await tab.press("Enter");
    await tab.until(seen("error"));
    assert.match(await tab.text("#error"), sentence);
    assert.equal(await tab.value(seen("chain")), false);
    await tab.click("#sample");
    await tab.until(seen("layers"));
    assert.equal(await tab.value(seen("error")), false);
  });
}

inTab("a folder is dropped", {}, async (tab) => {
  await tab.drop([write("run-7", sample())]);
  await tab.until(seen("layers"));
  assert.equal(await tab.text("#title"), "run-7");
  assert.match(await verified(tab), /^No fault found: all 33 versions are proven\./);
  assert.ok(tab.requests.every(({ url }) => !url.includes("manifests")));
});

inTab("a folder is picked, in which a pack is damaged and one is missing", {}, async (tab) => {
  const objects = damage(sample(), packOf(sample(), 20));
  objects.delete(packOf(objects, 30));
  await tab.pick("#pick", [write("damaged", objects)]);
  await tab.until(seen("layers"));
  const verdict = await verified(tab);
  assert.match(verdict, /^2 faults: 20 of 33|^2 faults: 21 of 33/);
  assert.match(verdict, /The pack of version 20 is damaged/);
  assert.match(verdict, /The pack of version 30 is missing/);
  await tab.value(`document.querySelector("#strips canvas").focus()`);
  await tab.press("ArrowLeft", "ArrowLeft");
  assert.equal(await tab.text("#readout"), "all weights, version 30: The pack of version 30 is missing.");
});

inTab("of a long chain the first and the newest versions are shown, until all are wanted", {}, async (tab) => {
  const written = new Chain();
  const state = (version) => ({ "layers.0.w": { dtype: "U16", shape: [4], words: [1n, 2n, 3n, BigInt(version)] } });
  written.publish(0, state(0), null, [written.plainPack(["layers.0.w"], state(0))]);
  for (let version = 1; version < 60; version++) {
    const fitted = written.fitted(state(version - 1), state(version));
    const chunk = written.chunk([["layers.0.w", 0, 4]], fitted, state(version), {});
    written.publish(version, state(version), version - 1, [written.chunkPack([chunk], state(version))]);
  }
  await tab.drop([write("long", written.objects)]);
  await tab.until(seen("layers"));
  const found = await rows(tab);
  assert.deepEqual([found.length, found[3], found[4][0]], [26, ["Show 35 more"], "38"]);
  await tab.click("#versions button");
  assert.deepEqual((await rows(tab)).map(([version]) => Number(version)), [...Array(60).keys()]);
  assert.match(await verified(tab), /^No fault found: all 60 versions are proven/);
});

inTab("a folder whose newest manifest is no JSON is shown all the same", {}, async (tab) => {
  const objects = sample();
  objects.set("manifests/000000000032.json", Buffer.from("{"));
  await tab.drop([write("broken", objects)]);
  await tab.until(seen("layers"));
  assert.deepEqual((await rows(tab)).at(-1), ["32", "The manifest of version 32 breaks the format."]);
});

inTab("a folder that is no chain, and a file", {}, async (tab) => {
  const weights = write("weights", [["model.safetensors", Buffer.from("x")]]);
  await tab.drop([weights]);
  await tab.until(seen("error"));
  assert.match(await tab.text("#error"), /This folder is not a chain but has weights \(model\.safetensors\): there is no chain\.json\. Give the folder that/);
  await tab.drop([join(weights, "model.safetensors")]);
  await tab.until(`document.getElementById("error").innerText.includes("is a file")`);
});

inTab("a chain of the suite that a verifier must reject, and its sound twin", {}, async (tab) => {
  const half = "frames/invalid";
  const { id, twin, files } = casesOf(half).find(({ verify }) => verify?.faults.length === 1);
  const of = (all) => [...all].filter(([name]) => name.startsWith("chain/")).map(([name, data]) => [name.slice(6), data]);
  await tab.drop([write(id, of(files))]);
  await tab.until(`${seen("chain")} && document.getElementById("progress").hidden`);
  assert.match(await verified(tab), /^1 fault:/);
  await tab.drop([write(twin, of(casesOf("frames/valid").find((each) => each.id === twin).files))]);
  await tab.until(`document.getElementById("title").innerText === "${twin}" && document.getElementById("progress").hidden`);
  assert.equal(await tab.value(seen("verdict")), false);
  assert.match(await verified(tab), /^No fault found/);
});

inTab("keys that signed nothing, and what is no key", {}, async (tab) => {
  await tab.value(`document.getElementById("settings").open = true`);
  await tab.click("#keys");
  await tab.type("secret");
  await tab.click("#sample");
  await tab.until(seen("error"));
  assert.match(await tab.text("#error"), /“secret” is not a public key\. A public key has 64 hex digits/);
  await tab.value(`document.getElementById("keys").value = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"`);
  await tab.click("#sample");
  await tab.until(`document.getElementById("error").innerText.includes("cannot be trusted")`);
  assert.match(await tab.text("#error"), /chain\.json cannot be trusted\. Give the page the public key/);
});

inTab("too little memory is said so", {}, async (tab) => {
  const objects = sample();
  await tab.value(`document.getElementById("memory").value = "0.2"`);
  await tab.drop([write("large", objects)]);
  await tab.until(seen("layers"));
  await tab.value(`document.getElementById("memory").value = "0.1"`);
  const verdict = await verified(tab);
  assert.match(verdict, /^Not all of it was verified: \d+ of 33 versions are proven\./);
  assert.match(verdict, /give it more in the settings/);
  await tab.value(`document.getElementById("memory").value = "64"`);
  assert.match(await verified(tab), /^No fault found/);
});

inTab("reading is stopped while the server says nothing", {}, async (tab) => {
  const objects = sample();
  const url = serve("/slow", objects);
  answers.set(`/slow/${packOf(objects, 9)}`, NEVER);
  await tab.click("#url");
  await tab.type(url);
  await tab.press("Enter");
  while (!tab.requests.some(({ url: asked }) => asked.endsWith(packOf(objects, 9)))) await new Promise((next) => setTimeout(next, 20));
  await tab.click("#cancel");
  await tab.until(`document.getElementById("status").innerText === "Stopped."`);
  assert.equal(await tab.value(seen("progress")), false);
  assert.equal(await tab.text("#read-layers"), "Show the layers (reads 32 kB)");
  answers.set(`/slow/${packOf(objects, 9)}`, objects.get(packOf(objects, 9)));
  await tab.click("#read-layers");
  await tab.until(seen("layers"));
  assert.equal(await tab.text("#status"), "");
});

const AUDIT = `(() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const luminance = (colour) => channels(colour).slice(0, 3).map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (channels(colour)[3] !== 0) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    const element = node.parentElement;
    if (!node.data.trim() || !element.checkVisibility({ opacityProperty: true }) || element.closest(":disabled")) continue;
    const [one, two] = [luminance(getComputedStyle(element).color), luminance(behind(element))];
    const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
    if (ratio < 4.5) found.push(node.data.trim().slice(0, 40) + " " + ratio.toFixed(2));
  }
  return found;
})()`;

for (const scheme of ["light", "dark"]) {
  inTab(`all text has contrast, and all controls have names: ${scheme}`, { scheme }, async (tab) => {
    await tab.click("#sample");
    await tab.until(seen("layers"));
    await tab.click("#damage");
    await tab.until(seen("verdict"));
    assert.deepEqual(await tab.value(AUDIT), []);
    await tab.send("Accessibility.enable");
    const { nodes } = await tab.send("Accessibility.getFullAXTree");
    const controls = nodes.filter(({ ignored, role }) => !ignored && ["button", "textbox", "searchbox", "spinbutton", "combobox", "radio", "slider", "progressbar"].includes(role?.value));
    assert.ok(controls.length > 40);
    assert.deepEqual(controls.filter(({ name }) => !name?.value).map(({ role }) => role.value), []);
  });
}

inTab("nothing sticks out of a narrow window", { width: 360, height: 700 }, async (tab) => {
  await tab.click("#sample");
  await tab.until(seen("layers"));
  await tab.click("#damage");
  await tab.until(seen("verdict"));
  const tables = `[...document.querySelectorAll(".scroll")].filter((box) => box.checkVisibility()).map((box) => box.scrollWidth - box.clientWidth)`;
  assert.deepEqual(await tab.value(tables), [0, 0]);
  for (const width of [360, 320]) {
    await tab.size(width, 700);
    assert.equal(await tab.value("document.documentElement.scrollWidth"), width);
  }
});
