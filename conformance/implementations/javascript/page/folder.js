/** A folder in, its versions and the verifier's answer out. Nothing leaves the browser. */
import { FileStore, overview, verify } from "../src/index.js";
import { $, describe, limits, row } from "./dom.js";

let store = null;

function say(text) {
  $("status").textContent = text;
}

/** The chain may be the folder that was given or lie somewhere below it. */
function rootOf(paths) {
  const chains = paths.filter((p) => p === "chain.json" || p.endsWith("/chain.json"));
  chains.sort((a, b) => a.length - b.length);
  return chains.length > 0 ? chains[0].slice(0, -"chain.json".length) : null;
}

/** @param {Map<string, File>} files by path */
async function open(files) {
  $("versions").replaceChildren();
  $("faults").replaceChildren();
  $("verify").disabled = true;
  store = null;
  const root = rootOf([...files.keys()]);
  if (root === null) return say("There is no chain.json in this folder.");
  const candidate = new FileStore(new Map([...files].filter(([p]) => p.startsWith(root)).map(([p, f]) => [p.slice(root.length), f])));
  try {
    const { chain, created, edges } = await overview(candidate, limits());
    for (const { object, version, shortcut, manifest, error } of edges) {
      row(manifest
        ? [version, shortcut ? object : "manifest", manifest.base ? `from ${manifest.base.version}` : "full",
          `${manifest.packs.length} packs, ${manifest.cost} bytes`, manifest.created,
          shortcut ? "" : manifest.files.map((f) => f.name).join(", ")]
        : [version, object, "", describe(error), "", ""], $("versions"));
    }
    store = candidate;
    $("verify").disabled = false;
    say(`Chain ${chain}, created ${created}: ${edges.filter((e) => !e.shortcut).length} versions, ${edges.filter((e) => e.shortcut).length} shortcuts.`);
  } catch (e) {
    say(describe(e));
  }
}

async function check() {
  $("verify").disabled = true;
  $("faults").replaceChildren();
  try {
    const faults = await verify(store, { ...limits(), progress: (v) => say(`Verifying version ${v} …`) });
    for (const fault of faults) row([fault.error, fault.object, fault.rule, fault.message], $("faults"));
    say(faults.length === 0 ? "No fault found." : `${faults.length} faults.`);
  } catch (e) {
    say(describe(e));
  }
  $("verify").disabled = false;
}

/** All files below a dropped folder. */
async function walk(entry, path, files) {
  if (entry.isFile) {
    files.set(path, await new Promise((resolve, reject) => entry.file(resolve, reject)));
    return;
  }
  const reader = entry.createReader();
  for (;;) {
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (part.length === 0) return;
    for (const child of part) await walk(child, path === "" ? child.name : `${path}/${child.name}`, files);
  }
}

$("pick").addEventListener("change", ({ target }) =>
  open(new Map([...target.files].map((f) => [f.webkitRelativePath || f.name, f]))));
$("verify").addEventListener("click", check);
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter((entry) => entry);
  const files = new Map();
  try {
    for (const entry of entries) await walk(entry, entry.isFile ? entry.name : "", files);
  } catch (e) {
    return say(describe(e));
  }
  await open(files);
});
