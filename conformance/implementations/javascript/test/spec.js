/** What SPEC.md itself offers as tests: the chain of appendix A and the marked examples, there and in examples.md. */
import { readFileSync, readdirSync } from "node:fs";
import { join, relative } from "node:path";
import { fileURLToPath } from "node:url";

const TEXTS = ["../../../../SPEC.md", "../../../examples.md"]
  .map((path) => readFileSync(new URL(path, import.meta.url), "utf8"));

/** @returns {Map<string, Uint8Array>} the chain of appendix A */
export function appendix() {
  const folder = fileURLToPath(new URL("../../../worked_example/", import.meta.url));
  const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = files.map((entry) => join(entry.parentPath ?? entry.path, entry.name));
  return new Map(paths.map((path) => [relative(folder, path).replaceAll("\\", "/"), new Uint8Array(readFileSync(path))]));
}

/** @returns {string[]} the names of the packs of a manifest or shortcut of appendix A */
export const packsOf = (name) => JSON.parse(Buffer.from(appendix().get(name))).packs.map((pack) => pack.path);

/** @returns {{kind: string, valid: boolean, error: string|undefined, text: string}[]} */
export function examples() {
  return TEXTS.flatMap((text) => [...text.matchAll(/<!-- example: (\S+) (valid|invalid)(?: (\S+))? -->\s*```json\n([^`]*)```/g)]
    .map(([, kind, valid, error, json]) => ({ kind, valid: valid === "valid", error, text: json })));
}
