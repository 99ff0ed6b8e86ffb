/** The page: a chain in, from a sample, a folder or a server; its versions, its layers and the verifier's verdict out. */
import { overview, verify } from "./src/index.js";
import { $, complain, limits, make, noComplaint, say, sentences } from "./page/dom.js";
import { bytesText, countText } from "./page/figures.js";
import { offerFollowing, stop as stopFollowing } from "./page/follow.js";
import { forgetLayers, layersCost, readLayers } from "./page/layers.js";
import { namesOf } from "./page/sentences.js";
import { addressOf, damaged, droppedFiles, folder, sample, server } from "./page/sources.js";
import { verdictOf } from "./page/verdict.js";
import { showFacts, showVersions } from "./page/versions.js";
import { Work } from "./page/work.js";

/** Packs of so many bytes are read for the layers without a click. */
const AT_ONCE = 2 ** 25;
/** Faults that are shown. */
const MOST_FAULTS = 50;

/** The chain that is shown. @type {{source: import("./page/sources.js").Source, edges: object[]}|null} */
let shown = null;

/** One piece of work with the store of the chain; a failure is shown. @param {(work: Work) => Promise<void>} doing */
async function busy(title, total, source, doing) {
  noComplaint();
  say("");
  const work = new Work(title, total);
  if (source) source.store.work = work;
  try {
    await doing(work);
  } catch (e) {
    if (work.signal.aborted) {
      if (Work.current === null) say("Stopped.");
    } else {
      complain(e, { where: source?.url ?? $("url").value });
    }
  } finally {
    if (source?.store.work === work) source.store.work = null;
    work.end();
  }
}

// -- opening ----------------------------------------------------------------------------------------------------------

/** @param {(work: Work) => Promise<object>|object} find gives the source */
async function open(find) {
  close();
  let found = null;
  await busy("Looking at the chain", null, null, async (work) => {
    const source = await find(work);
    work.signal.throwIfAborted();
    source.store.work = work;
    await look(source, work);
    found = source;
  });
  if (found === null) return;
  $("title").focus({ preventScroll: true });
  $("chain").scrollIntoView({ block: "start" });
  offerFollowing(found.url, () => lookAgain(found));
  if (layersCost(shown.edges) <= AT_ONCE) await layers();
  else offerLayers();
}

/** Shows what chain.json, the manifests and the layouts say. */
async function look(source, work) {
  const seen = await overview(source.store, { ...limits(), progress: (done, all) => work.at(`${done} of ${all} versions`) });
  work.signal.throwIfAborted();
  shown = { source, ...seen };
  showFacts(shown);
  showVersions(shown.edges);
  $("damage").hidden = source.objects === null || shown.edges.length < 8;
  $("chain").hidden = false;
}

/** A followed chain has a new version. What a person has begun is not ended for that: the next version is looked at then. */
async function lookAgain(old) {
  if (shown?.source !== old || Work.current !== null) return;
  await busy("Looking at the chain", null, null, async (work) => {
    const source = await server(old.url, work, limits());
    for (const [name, bytes] of old.store.small) source.store.small.set(name, bytes);
    old.store = source.store;
    old.note = source.note;
    old.store.work = work;
    await look(old, work);
    noVerdict();
    if (!$("layers").hidden || layersCost(shown.edges) <= AT_ONCE) await readLayers(old.store, shown.edges, work);
  });
}

function close() {
  Work.current?.end();
  noComplaint();
  stopFollowing();
  forgetLayers();
  noVerdict();
  shown = null;
  $("chain").hidden = true;
  $("read-layers").hidden = true;
}

// -- layers -----------------------------------------------------------------------------------------------------------

function offerLayers() {
  $("read-layers").textContent = `Show the layers (reads ${bytesText(layersCost(shown.edges))})`;
  $("read-layers").hidden = false;
}

async function layers() {
  const { source, edges } = shown;
  $("read-layers").hidden = true;
  await busy("Reading which words changed", layersCost(edges), source, (work) => readLayers(source.store, edges, work));
  if (shown?.source === source && $("layers").hidden && layersCost(edges) > 0) offerLayers();
}

// -- the verifier -----------------------------------------------------------------------------------------------------

function noVerdict() {
  $("verdict").hidden = true;
  $("verify").disabled = false;
}

async function check() {
  const { source, edges } = shown;
  noVerdict();
  $("verify").disabled = true;
  const own = edges.filter(({ shortcut }) => !shortcut);
  const cost = edges.reduce((sum, { manifest }) => sum + (manifest ? Number(manifest.cost) : 0), 0)
    + own.reduce((sum, { manifest }) => sum + (manifest ? manifest.files.reduce((all, { size }) => all + size, 0) : 0), 0);
  await busy("Verifying", cost, source, async (work) => {
    const options = limits();
    const proven = new Set();
    const faults = await verify(source.store, {
      ...options, breathe: () => source.store.breathe(), progress: (version) => work.at(`version ${version}`), proven: (version) => proven.add(version),
    });
    const verdict = verdictOf({
      versions: own.map(({ version }) => version), proven, faults, shortcuts: edges.length - own.length,
      keys: options.keys.length, bytes: work.done, unlisted: source.unlisted, more: source.more,
    });
    showVerdict(verdict);
    showVersions(edges, { proven });
  });
  $("verify").disabled = false;
}

const list = (heading, items, className) => (items.length === 0 ? ""
  : make("section", { className }, make("h4", {}, heading), make("ul", {}, ...items.map((item) => make("li", {}, ...[item].flat())))));

function showVerdict({ kind, sentence, faults, proven, open: unproven }) {
  $("verdict").className = kind;
  $("verdict").replaceChildren(
    make("h3", { tabIndex: -1 }, sentence),
    list("Faults", faults.slice(0, MOST_FAULTS).map((fault) => sentences(fault, { names: namesOf(shown.edges) })), "faults"),
    faults.length > MOST_FAULTS ? make("p", {}, `And ${countText(faults.length - MOST_FAULTS)} more.`) : "",
    list("Proven", proven, "proven"),
    list("Not proven", unproven, "open"));
  $("verdict").hidden = false;
  $("verdict").firstChild.focus({ preventScroll: true });
}

function flip() {
  const { source, edges } = shown;
  const { manifest } = edges.filter(({ shortcut }) => !shortcut)[7];
  open(() => damaged(source.objects, manifest.packs[0].path)).then(check);
}

// -- what a person does -----------------------------------------------------------------------------------------------

const SAMPLE = "#sample";
const URL_PREFIX = "#url=";

/** Shows what the address of the page names, so that it can be shared. */
function fromFragment() {
  if (location.hash === SAMPLE) return open(sample);
  if (!location.hash.startsWith(URL_PREFIX)) return close();
  $("url").value = new URLSearchParams(location.hash.slice(1)).get("url");
  return open((work) => server(addressOf($("url").value), work, limits()));
}

function go(fragment) {
  if (location.hash === fragment) fromFragment();
  else location.hash = fragment;
}

/** A folder has no address. */
function openFolder(find) {
  history.replaceState(null, "", location.pathname + location.search);
  return open(find);
}

$("sample").addEventListener("click", () => go(SAMPLE));
$("server").addEventListener("submit", (event) => {
  event.preventDefault();
  go(URL_PREFIX + encodeURIComponent($("url").value.trim()));
});
$("pick").addEventListener("change", ({ target }) => {
  const files = new Map([...target.files].map((file) => [file.webkitRelativePath || file.name, file]));
  target.value = "";
  openFolder(() => folder(files));
});
$("verify").addEventListener("click", check);
$("damage").addEventListener("click", flip);
$("read-layers").addEventListener("click", layers);
addEventListener("hashchange", fromFragment);

document.addEventListener("dragover", (event) => {
  event.preventDefault();
  $("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) $("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  $("drop").classList.remove("over");
  const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter((entry) => entry);
  openFolder(async () => folder(await droppedFiles(entries)));
});
$("stuck").remove();
fromFragment();
