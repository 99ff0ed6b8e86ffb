/** The numbers of SPEC.md section 16. */
export const LIMIT = Object.freeze({
  smallObject: 65536, // chain.json, latest.json
  manifest: 67108864,
  layout: 268435456,
  nesting: 16,
  packHeader: 100000000,
  bytes: 2 ** 40, // a pack, a file
  edgeBytes: 2n ** 48n, // all packs of a manifest
  stateBytes: 2n ** 53n, // all words of a layout
  packs: 65536,
  ranges: 65536, // of a pack's `tensors`
  hinted: 64, // shortcuts that the hint names
  tensors: 2 ** 20,
  dimensions: 16,
  elements: 2 ** 48,
  chunkWords: 2 ** 27,
  groupWords: 2 ** 24, // of order exponent
  annotations: 64,
  annotationBytes: 4096,
  version: 10 ** 12 - 1,
  path: 200,
  tensorName: 1024,
  window: 2 ** 27,
});
