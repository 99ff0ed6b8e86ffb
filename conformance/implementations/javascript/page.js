/** The page: a folder's versions and the verifier's answer, and a chain on a server, version after version. */
import "./page/folder.js";
import "./page/follow.js";
