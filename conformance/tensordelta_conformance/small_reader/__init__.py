"""A reader and verifier of tensordelta chains: correct, slow, and small enough to be read in one sitting.

It is written from SPEC.md alone, on numpy and zstd, and shares no code with the reference implementation or with the
generator of the suite's cases. It reads whole states, and slices of one; it verifies no signatures. Each rejection
names the requirement that asks for it. Read the modules in this order, that of SPEC.md but for sections 7 and 8:

| module        | sections            |                                                             |
|---------------|---------------------|-------------------------------------------------------------|
| `rejection`   | 1.4, 17             | the errors                                                  |
| `state`       | 3, 5                | words, dtypes, layouts, states; fitting                     |
| `fields`      | 4.3, 4.4            | JSON and the types of its fields                            |
| `documents`   | 4.1, 4.5 to 4.11    | chain, layout, manifest, shortcut, hint; pin and signature  |
| `fingerprint` | 8                   | fingerprints                                                |
| `packs`       | 6, 7.11             | safetensors files, the chunk table                          |
| `chunks`      | 7                   | streams, positions, order, values                           |
| `chain`       | 4.2, 4.12, 9.1, 9.2 | the objects under a root; one edge                          |
| `reader`      | 9.3, 10.1           | routes; prepare, apply, undo                                |
| `follow`      | 10.2                | routes where nothing is listed                              |
| `slices`      | 9.5                 | holders of slices of one state                              |
| `verifier`    | 17                  | all edges                                                   |
| `adapter`     | ADAPTER.md          | the protocol of the suite                                   |

The judge of writers (`tensordelta_conformance.judge`) is built on it. The suite's own test changes single lines in
copies of this folder, so its modules import one another by relative names only.
"""
