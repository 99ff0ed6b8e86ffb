/** The heat map: a row for each layer or tensor, a column for each version. */
import { changes } from "../src/index.js";
import { $, limits, make } from "./dom.js";
import { countText, counted, percentText } from "./figures.js";
import { byLayer, rowsOf, scaleOf, strength, sumOf } from "./heat.js";
import { inWords, namesOf } from "./sentences.js";

/** Rows that are shown without a filter. */
const MOST = 400;

/** What is shown: its columns, its rows, and the cell that the keyboard is at. */
const map = { columns: [], tensors: [], rows: [], names: new Map(), scale: null, exact: true, column: 0, row: 0 };

/** @returns {number} bytes of packs that have to be read for the map */
export const layersCost = (edges) => deltas(edges).reduce((sum, { manifest }) => sum + Number(manifest.cost), 0);

const deltas = (edges) => edges.filter(({ shortcut, manifest, layout }) => !shortcut && manifest?.base && layout);

/** Reads the positions in all packs of a chain. @param {import("./work.js").Work} work */
export async function readLayers(store, edges, work) {
  const found = new Map();
  for await (const each of changes(store, deltas(edges), { ...limits(), breathe: () => store.breathe() })) {
    found.set(each.manifest, each);
    work.at(`version ${each.manifest.version}`);
  }
  map.columns = edges.filter(({ shortcut }) => !shortcut).map(({ version, manifest, layout, error }) =>
    ({ version, layout, full: Boolean(manifest) && !manifest.base, ...(found.get(manifest) ?? { error }) }));
  map.tensors = rowsOf(map.columns);
  map.names = namesOf(edges);
  map.exact = map.columns.every(({ exact }) => exact !== false);
  map.column = map.columns.length - 1;
  const layers = byLayer(map.tensors);
  const grouped = layers.length < map.tensors.length;
  $("grouping").hidden = !grouped;
  if (!grouped || layers.length < 2) $("by-tensor").checked = true;
  else $(map.tensors.length > 60 || innerWidth < 700 ? "by-layer" : "by-tensor").checked = true;
  $("tensor-filter").value = "";
  $("inexact").hidden = map.exact;
  $("layers").hidden = map.tensors.length === 0;
  arrange();
}

export function forgetLayers() {
  Object.assign(map, { columns: [], tensors: [], rows: [] });
  $("layers").hidden = true;
  $("strips").tBodies[0].replaceChildren();
}

function arrange() {
  if (map.tensors.length === 0) return;
  const text = $("tensor-filter").value.trim().toLowerCase();
  const all = $("by-layer").checked ? byLayer(map.tensors) : map.tensors;
  const chosen = all.filter(({ name }) => name.toLowerCase().includes(text));
  if ($("sort").value === "changed") chosen.sort((a, b) => b.total / b.words - a.total / a.words);
  const shown = chosen.slice(0, MOST);
  map.rows = text === "" ? [sumOf("all weights", map.tensors), ...shown] : shown;
  map.row = Math.min(map.row, Math.max(0, map.rows.length - 1));
  $("shown").textContent = shown.length < all.length ? `${countText(shown.length)} of ${countText(all.length)}` : "";
  const { columns } = map;
  $("first").textContent = columns[0].version;
  $("last").textContent = columns.length > 1 ? columns.at(-1).version : "";
  $("strips").tBodies[0].replaceChildren(...map.rows.map(stripRow));
  map.scale = scaleOf(all);
  const { low, high } = map.scale;
  $("ramp").replaceChildren(...[low, (low + high) / 2, high].map((power) => make("span", {}, percentText(10 ** power))));
  draw();
  readOut();
}

function stripRow(row, index) {
  const canvas = make("canvas", {
    width: map.columns.length, height: 1, tabIndex: index === map.row ? 0 : -1,
    attributes: { role: "slider", "aria-label": `${row.name}, by version`, "aria-valuemin": map.columns[0].version, "aria-valuemax": map.columns.at(-1).version },
  });
  const share = row.total / row.words;
  return make("tr", { className: row.name === "all weights" ? "sum" : "" },
    make("th", { scope: "row" }, ...breakable(row.name)),
    make("td", { className: "strip" }, canvas),
    make("td", { className: "number wide" }, countText(row.words)),
    make("td", { className: "number" }, countText(row.total), make("span", { className: "wide soft" }, share > 0 ? ` (${share < 1 ? percentText(share) : `${Number(share.toPrecision(2))}×`})` : "")));
}

/** A name that may be broken after its dots. */
const breakable = (name) => name.split(/(?<=\.)/).flatMap((part) => [part, make("wbr")]);

/** The colours of the theme, as numbers. @returns {{scale: number[][], none: number[], full: number[], bad: number[]}} */
function colours() {
  const style = getComputedStyle($("strips"));
  const of = (name) => style.getPropertyValue(name).trim().match(/[0-9a-f]{2}/gi).map((pair) => parseInt(pair, 16));
  return { scale: [0, 1, 2, 3, 4].map((i) => of(`--heat-${i}`)), none: of("--heat-none"), full: of("--heat-full"), bad: of("--heat-bad") };
}

function colourOf(row, column, { scale, none, full, bad }) {
  const { full: isFull, changed } = map.columns[column];
  const count = row.changed[column];
  if (isFull) return full;
  if (!changed) return bad;
  if (Number.isNaN(count) || count === 0) return none;
  const place = strength(count / row.words, map.scale) * (scale.length - 1);
  const low = Math.min(Math.floor(place), scale.length - 2);
  return scale[low].map((from, i) => Math.round(from + (scale[low + 1][i] - from) * (place - low)));
}

function draw() {
  const theme = colours();
  const canvases = $("strips").querySelectorAll("canvas");
  map.rows.forEach((row, i) => {
    const context = canvases[i].getContext("2d");
    const image = context.createImageData(map.columns.length, 1);
    map.columns.forEach((_, column) => image.data.set([...colourOf(row, column, theme), 255], 4 * column));
    context.putImageData(image, 0, 0);
  });
}

/** What a cell says. */
function cellText(row, column) {
  const { version, full, changed, error } = map.columns[column];
  const count = row.changed[column];
  if (full) return `version ${version}: published in full, not as a change`;
  if (!changed) return `version ${version}: ${error ? inWords(error, map).sentence : "it cannot be read."}`;
  if (Number.isNaN(count)) return `version ${version}: it has no such tensor`;
  return `version ${version}: ${map.exact ? "" : "about "}${countText(count)} of ${counted(row.words, "word")} changed (${percentText(count / row.words)})`;
}

function readOut() {
  const row = map.rows[map.row];
  $("readout").textContent = row ? `${row.name}, ${cellText(row, map.column)}` : "No tensor has this in its name.";
  const canvases = [...$("strips").querySelectorAll("canvas")];
  canvases.forEach((canvas, i) => {
    canvas.tabIndex = i === map.row ? 0 : -1;
    canvas.setAttribute("aria-valuenow", map.columns[map.column].version);
    canvas.setAttribute("aria-valuetext", cellText(map.rows[i], map.column));
  });
  const strip = canvases[map.row]?.getBoundingClientRect();
  const cursor = $("cursor");
  cursor.hidden = !strip;
  if (!strip) return;
  const frame = $("map").getBoundingClientRect();
  const width = strip.width / map.columns.length;
  Object.assign(cursor.style, {
    left: `${strip.left - frame.left + $("map").scrollLeft + width * map.column}px`, top: `${strip.top - frame.top}px`,
    width: `${Math.max(3, width)}px`, height: `${strip.height}px`,
  });
}

const rowOf = (canvas) => [...$("strips").querySelectorAll("canvas")].indexOf(canvas);

function point({ target, clientX }) {
  if (target.tagName !== "CANVAS") return;
  const { left, width } = target.getBoundingClientRect();
  map.row = rowOf(target);
  map.column = Math.max(0, Math.min(map.columns.length - 1, Math.floor(((clientX - left) / width) * map.columns.length)));
  readOut();
}

$("strips").addEventListener("pointermove", point);
$("strips").addEventListener("pointerdown", point);
$("strips").addEventListener("focusin", ({ target }) => {
  if (target.tagName !== "CANVAS" || map.row === rowOf(target)) return;
  map.row = rowOf(target);
  readOut();
});

const MOVES = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Home: [0, -Infinity], End: [0, Infinity] };

$("strips").addEventListener("keydown", (event) => {
  const move = MOVES[event.key];
  if (!move || event.target.tagName !== "CANVAS") return;
  event.preventDefault();
  map.row = Math.max(0, Math.min(map.rows.length - 1, map.row + move[0]));
  map.column = Math.max(0, Math.min(map.columns.length - 1, map.column + move[1]));
  readOut();
  $("strips").querySelectorAll("canvas")[map.row].focus();
});

for (const id of ["by-layer", "by-tensor", "sort"]) $(id).addEventListener("change", arrange);
$("tensor-filter").addEventListener("input", arrange);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
addEventListener("resize", readOut);
