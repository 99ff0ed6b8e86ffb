/** The numbers of SPEC.md section 16. */
export const LIMIT = Object.freeze({
  smallObject: 65536, // chain.json, latest.json
  manifest: 67108864,
  layout: 268435456,
  nesting: 16,
  packHeader: 100000000,
  bytes: 2 ** 40, // a pack, a file
  packs: 65536,
  hinted: 64, // shortcuts that the hint names
  tensors: 2 ** 20,
  dimensions: 16,
  elements: 2 ** 48,
  chunkWords: 2 ** 27,
  exponentWords: 2 ** 24,
  annotations: 64,
  annotationBytes: 4096,
  version: 10 ** 12 - 1,
  path: 200,
  tensorName: 1024,
  window: 2 ** 27,
});
