/** The library for Node and browsers; node.js has what only Node can do. */
export { Rejection, ERROR_NAMES } from "./errors.js";
export { Reader, DEFAULT_MEMORY } from "./reader.js";
export { follow } from "./follower.js";
export { verify } from "./verifier.js";
export { changes, overview } from "./overview.js";
export { namesFromHint } from "./walk.js";
export { State } from "./state.js";
export { Entry, Layout, entryOf } from "./layout.js";
export { MemoryStore, FileStore, HttpStore, StoreFailure, TooLong } from "./store.js";
export { FEATURES } from "./manifest.js";
export { DTYPES } from "./dtypes.js";
export { Holder, proveTogether, readTogether } from "./holder.js";
export { Shares } from "./share.js";
export { Slices } from "./slices.js";
export { GroupFailure, total } from "./sums.js";
export { recordOf } from "./record.js";
export { hex64 } from "./bytes.js";
