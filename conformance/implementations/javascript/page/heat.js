/** The rows of the heat map: how many words of each tensor, or layer, each version changed. */
import { layerOf, natural } from "./figures.js";

/**
 * @typedef {{name: string, words: number, changed: Float64Array, total: number}} Row  words: of its newest version;
 *   changed: by column; NaN where the version has no such tensor, or where it is not known; total: over all columns
 */

const of = (name, words, changed) => ({ name, words, changed, total: changed.reduce((sum, count) => sum + (count || 0), 0) });

/**
 * @param {{layout?: import("../src/layout.js").Layout, changed?: Map<number, number>}[]} columns a version each; without
 *   `changed` nothing is known of it
 * @returns {Row[]} in natural order of names
 */
export function rowsOf(columns) {
  const rows = new Map();
  columns.forEach(({ layout, changed }, column) => {
    layout?.tensors.forEach(({ name, words }, tensor) => {
      if (!rows.has(name)) rows.set(name, { words, changed: new Float64Array(columns.length).fill(NaN) });
      const row = rows.get(name);
      row.words = words;
      if (changed) row.changed[column] = changed.get(tensor) ?? 0;
    });
  });
  return [...rows].map(([name, { words, changed }]) => of(name, words, changed)).sort((a, b) => natural(a.name, b.name));
}

/** Rows added up. */
export function sumOf(name, rows) {
  const changed = new Float64Array(rows[0].changed.length).fill(NaN);
  for (const row of rows) {
    row.changed.forEach((count, column) => {
      if (!Number.isNaN(count)) changed[column] = (changed[column] || 0) + count;
    });
  }
  return of(name, rows.reduce((sum, row) => sum + row.words, 0), changed);
}

/** The rows of layers, where tensors of one share the beginning of their names. @param {Row[]} rows @returns {Row[]} */
export function byLayer(rows) {
  const layers = new Map();
  for (const row of rows) {
    const layer = layerOf(row.name);
    if (!layers.has(layer)) layers.set(layer, []);
    layers.get(layer).push(row);
  }
  return [...layers].map(([name, parts]) => sumOf(name, parts)).sort((a, b) => natural(a.name, b.name));
}

/**
 * The powers of ten between which the densities of all cells with changed words lie.
 * @param {Row[]} rows @returns {{low: number, high: number}} exponents, low < high
 */
export function scaleOf(rows) {
  let [least, most] = [1, 0];
  for (const { changed, words } of rows) {
    for (const count of changed) {
      if (!(count > 0)) continue;
      least = Math.min(least, count / words);
      most = Math.max(most, count / words);
    }
  }
  const high = most > 0 ? Math.ceil(Math.log10(most) - 1e-9) || 0 : 0;
  return { low: Math.min(high - 1, Math.floor(Math.log10(least) + 1e-9)), high };
}

/** Where a density stands on a scale, from 0 to 1. */
export const strength = (density, { low, high }) => Math.max(0, Math.min(1, (Math.log10(density) - low) / (high - low)));
