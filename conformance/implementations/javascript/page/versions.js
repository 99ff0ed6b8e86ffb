/** The chain at a glance, and its versions as a table. */
import { $, make } from "./dom.js";
import { bytesText, countText, counted, percentText, timeText } from "./figures.js";
import { inWords, namesOf } from "./sentences.js";

/** Of longer chains the first and the newest versions are shown, until a person wants all. */
const [MOST, HEAD, TAIL] = [40, 3, 22];

export const stateWords = (layout) => layout.tensors.reduce((sum, { words }) => sum + words, 0);
const stateBytes = (layout) => layout.tensors.reduce((sum, { bytes }) => sum + bytes, 0);
export const changedOf = (manifest) => manifest.packs.reduce((sum, { changed }) => sum + changed, 0);

/** @param {{source: object, chain: string, created: string, edges: object[]}} shown */
export function showFacts({ source, chain, created, edges }) {
  const own = edges.filter((edge) => !edge.shortcut);
  const readable = own.filter(({ manifest }) => manifest);
  const newest = own.at(-1);
  $("title").textContent = source.title;
  $("note").textContent = source.note;
  const facts = [["Versions", own.length === 0 ? "none" : versionsText(own)]];
  if (newest?.layout) {
    const { layout } = newest;
    facts.push(["Weights", `${counted(layout.tensors.length, "tensor")}, ${bytesText(stateBytes(layout))}`]);
    facts.push(["Types", [...new Set(layout.tensors.map(({ dtype }) => dtype.name))].join(", ")]);
  }
  const cost = readable.reduce((sum, { manifest }) => sum + Number(manifest.cost), 0);
  facts.push(["Packs", `${bytesText(cost)}${savedText(readable, cost)}`]);
  const shortcuts = edges.filter((edge) => edge.shortcut);
  if (shortcuts.length > 0) facts.push(["Shortcuts", shortcutsText(shortcuts)]);
  facts.push(["Begun", timeText(created)], ["Chain", chain]);
  $("facts").replaceChildren(...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
}

function versionsText(own) {
  const [first, last] = [own[0].version, own.at(-1).version];
  const gaps = last - first + 1 - own.length;
  return first === last ? `${first}` : `${countText(own.length)} (${first} to ${last}${gaps > 0 ? `, ${countText(gaps)} absent` : ""})`;
}

/** What whole checkpoints would take. */
function savedText(own, cost) {
  const whole = own.reduce((sum, { layout }) => sum + (layout ? stateBytes(layout) : 0), 0);
  return own.length > 1 && cost > 0 && whole > cost ? `, where ${countText(own.length)} checkpoints take ${bytesText(whole)}` : "";
}

function shortcutsText(shortcuts) {
  const names = shortcuts.slice(0, 6).map(({ manifest, version }) => (manifest?.base ? `${manifest.base.version} → ${version}` : `${version}`));
  return `${names.join(", ")}${shortcuts.length > 6 ? `, and ${countText(shortcuts.length - 6)} more` : ""}`;
}

/** @param {object[]} edges @param {{proven: Set<number>}|null} look of the verifier */
export function showVersions(edges, look = null, all = false) {
  const own = edges.filter((edge) => !edge.shortcut);
  const cut = !all && own.length > MOST;
  const names = namesOf(edges);
  const deltas = own.filter(({ manifest }) => manifest?.base);
  const most = {
    cost: Math.max(1, ...deltas.map(({ manifest }) => Number(manifest.cost))),
    density: Math.max(1e-12, ...deltas.map((edge) => densityOf(edge) ?? 0)),
  };
  const rows = own.map((edge, i) => (cut && i >= HEAD && i < own.length - TAIL ? null : row(edge, { most, look, names })));
  if (cut) rows[HEAD] = gap(own.length - HEAD - TAIL, () => showVersions(edges, look, true));
  $("versions").tBodies[0].replaceChildren(...rows.filter((each) => each !== null));
  $("versions").classList.toggle("looked", look !== null);
}

function gap(count, show) {
  const button = make("button", { type: "button", className: "plain" }, `Show ${countText(count)} more`);
  button.addEventListener("click", show);
  return make("tr", {}, make("td", { colSpan: 7 }, button));
}

/** The share of words that a version changes; null where it is published in full, or its layout cannot be read. */
function densityOf({ manifest, layout }) {
  const words = layout ? stateWords(layout) : 0;
  return manifest.base && words > 0 ? changedOf(manifest) / words : null;
}

function row(edge, { most, look, names }) {
  const { version, manifest, error } = edge;
  const head = make("th", { scope: "row" }, String(version));
  if (!manifest) {
    const { sentence } = inWords(error, { names });
    return make("tr", { className: "bad" }, head, make("td", { colSpan: 6 }, sentence));
  }
  const { base, cost, created } = manifest;
  const density = densityOf(edge);
  const mark = look === null ? "" : look.proven.has(version) ? "proven" : "not proven";
  return make("tr", { className: mark === "not proven" ? "bad" : "" }, head,
    make("td", { className: "wide" }, base ? `version ${base.version}` : "nothing: it is full"),
    make("td", { className: "number" }, bytesText(cost), base ? bar(Number(cost) / most.cost) : ""),
    make("td", { className: "number" }, base ? (density === null ? "" : percentText(density)) : "all", density === null ? "" : bar(density / most.density)),
    make("td", { className: "number wide" }, countText(changedOf(manifest))),
    make("td", { className: "wide" }, timeText(created)),
    make("td", { className: "notes" }, mark ? make("span", { className: `mark ${mark === "proven" ? "good" : "bad"}` }, mark) : "", notesOf(manifest)));
}

/** A bar below a figure. @param {number} share of the largest */
function bar(share) {
  const inner = make("i");
  inner.style.width = `${100 * share}%`;
  return make("span", { className: "bar", ariaHidden: "true" }, inner);
}

function notesOf({ annotations, files }) {
  const entries = [...(annotations instanceof Map ? annotations : Object.entries(annotations ?? {}))];
  const parts = entries.slice(0, 4).map(([key, value]) => `${key} ${value}`);
  if (files.length > 0) parts.push(files.length > 2 ? counted(files.length, "file") : files.map(({ name }) => name).join(", "));
  return parts.join("; ");
}
