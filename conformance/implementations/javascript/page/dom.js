/** What both parts of the page do with the document. */
import { Rejection } from "../src/index.js";

export const $ = (id) => document.getElementById(id);

export function row(cells, parent) {
  const tr = document.createElement("tr");
  for (const cell of cells) {
    const td = document.createElement("td");
    td.textContent = cell;
    tr.append(td);
  }
  parent.append(tr);
}

export const describe = (e) => (e instanceof Rejection ? `${e.error}: ${e.object}: ${e.message} (${e.rule})` : String(e));

/** What the user allows Readers and Verifiers. */
export const limits = () => ({
  memory: 2 ** 20 * Number($("memory").value),
  keys: $("keys").value.split(/[\s,]+/).filter((key) => key !== ""),
});
