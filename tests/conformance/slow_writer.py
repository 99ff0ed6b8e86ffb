"""A small correct writer as an adapter of ADAPTER.md, made of the suite's slow encoders: `python slow_writer.py`.

It shows that the cases for writers can be passed, shortcuts, collectors and signatures included; altered copies of its
text show that the cases find what is wrong (test_writer_cases.py). It keeps no snapshot: before each version it reads
the base from the chain.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np

from generate import ed25519
from generate.builder import Builder, dumps, manifest_name, of_chunks, shortcut_name
from generate.codecs import chunk_for
from generate.model import CREATED, DTYPES, Model, Tensor, fit, ordered
from tensordelta_conformance.judge import Snapshot
from tensordelta_conformance.judge.chain import Chain
from tensordelta_conformance.judge.snapshot import Folder
from tensordelta_conformance.small_reader.documents import MANIFEST_NAME, parse_pin
from tensordelta_conformance.small_reader.packs import read_tensors
from tensordelta_conformance.small_reader.rejection import Rejection

LEVELS = ["writer-core", "writer-exponent", "signed"]
CAPABILITIES = ["shortcut", "collect", "sign"]
PATH = re.compile(r"(?=.{1,200}\Z)[A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*")


class Refusal(Exception):
    """The request is refused under a name of section 17."""


def need(condition: object, name: str, message: str) -> None:
    if not condition:
        raise Refusal(name, message)


# -- the folder --------------------------------------------------------------------------------------------------------


def put(path: Path, data: bytes) -> None:
    """Store an object; it appears with all of its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".tmp-{uuid.uuid4().hex}"
    temporary.write_bytes(data)
    temporary.rename(path)


def create(path: Path, data: bytes) -> bool:
    """Store an object if there is none of its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.parent / f".tmp-{uuid.uuid4().hex}"
    temporary.write_bytes(data)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    return True


def versions(root: Path) -> list[int]:
    return sorted(int(name[10:22]) for name in Folder(root) if MANIFEST_NAME.fullmatch(name))


def document(root: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((root / name).read_bytes())
    return found


# -- states ------------------------------------------------------------------------------------------------------------


def state_of(root: Path, version: int) -> Model:
    found = Chain(Folder(root)).version(version)
    return {name: Tensor(each.dtype, each.shape, each.words) for name, each in found.items()}


def state_of_file(path: str) -> Model:
    found = read_tensors(Path(path).read_bytes())
    return {name: Tensor(each.dtype, each.shape, each.words) for name, each in found.items()}


def check_state(state: Model) -> None:
    for name, each in state.items():
        need(1 <= len(name.encode()) <= 1024 and name != "__metadata__", "malformed", f"the name {name[:40]!r}")
        need(len(each.shape) <= 16, "limit", "more than 16 dimensions")
        product = 1
        for size in each.shape:
            product *= size or 1
        need(product <= 1 << 48, "limit", "too many elements")


def check_names(names: list[str]) -> None:
    for name in names:
        need(PATH.fullmatch(name), "malformed", f"the name {name[:40]!r}")
        need(not any(other.startswith(f"{name}/") for other in names), "malformed", f"{name} is a folder of another")


def check_annotations(notes: dict[str, str]) -> None:
    need(len(notes) <= 64, "limit", "more than 64 annotations")
    for key, value in notes.items():
        need(len(key.encode()) + len(value.encode()) <= 4096, "limit", f"the annotation {key[:40]!r}")


def differs(old: Tensor, new: Tensor) -> bool:
    return not np.array_equal(old.words, new.words)


# -- edges -------------------------------------------------------------------------------------------------------------


def edge(
    root: Path,
    start: tuple[int, Model] | None,
    state: Model,
    version: int,
    order: str,
    values: str,
    tag: str | None = None,
    layout: str | None = None,
    **fields: Any,
) -> tuple[Builder, str]:
    """The objects of a manifest, or of a shortcut where there is a tag; gives the edge's own name as well.

    Args:
        layout: the digest of the layout, if it is there already.
    """
    builder = Builder(salt=uuid.uuid4().hex)
    builder.objects.clear()
    base = fit({} if start is None else start[1], state)
    chunks = []
    for name in ordered(state):
        if differs(base[name], state[name]):
            by_exponent = order == "exponent" and bool(DTYPES[state[name].dtype][1]) and values == "step"
            how = {"order": "exponent"} if by_exponent else {}
            chunks.append(chunk_for(base, state, name, values=values, **how))
    layout = layout or builder.layout(state)
    if start is not None:
        builder.manifests[start[0]] = document(root, manifest_name(start[0]))
    features = ["exponent-order"] if any(each.entry["order"]["codec"] == "exponent" for each in chunks) else []
    builder.edge(
        version,
        state,
        [of_chunks(chunks, layout)] if chunks else [],
        base=None if start is None else start[0],
        layout=layout,
        features=features,
        shortcut=tag,
        chain=document(root, "chain.json")["chain"],
        **fields,
    )
    number = None if start is None else start[0]
    return builder, manifest_name(version) if tag is None else shortcut_name(version, number, tag)


def store(root: Path, builder: Builder, name: str, key: str | None = None) -> bool:
    """Store what an edge names, then the edge; tells whether its name was free."""
    for other, data in builder.objects.items():
        if other != name:
            put(root / other, data)
    sign(root, name, builder.objects[name], key)
    return create(root / name, builder.objects[name])


def signature_name(message: bytes, key: str) -> str:
    keyid = hashlib.sha256(ed25519.public_key(bytes.fromhex(key))).hexdigest()[:16]
    return f"signatures/{hashlib.sha256(message).hexdigest()}-{keyid}.json"


def sign(root: Path, name: str, data: bytes, key: str | None) -> None:
    if key is None:
        return
    message = b"tensordelta:" + name.encode() + b"\n" + data
    sig = base64.b64encode(ed25519.sign(bytes.fromhex(key), message)).decode()
    put(root / signature_name(message, key), dumps({"tensordelta": "1.0-rc.1", "sig": sig}))


def is_signed(root: Path, name: str, key: str | None) -> bool:
    if key is None:
        return True
    message = b"tensordelta:" + name.encode() + b"\n" + (root / name).read_bytes()
    return (root / signature_name(message, key)).exists()


# -- operations --------------------------------------------------------------------------------------------------------


def publish(request: dict[str, Any]) -> dict[str, Any]:
    root = Path(request["chain"])
    state = state_of_file(request["state"])
    files = {name: Path(path).read_bytes() for name, path in request.get("files", {}).items()}
    notes = request.get("annotations", {})
    key = request.get("key")
    check_state(state)
    check_names(list(files))
    check_annotations(notes)
    chain = dumps({"tensordelta": "1.0-rc.1", "chain": str(uuid.uuid4()), "created": CREATED})
    if not (root / "chain.json").exists():
        sign(root, "chain.json", chain, key)
        create(root / "chain.json", chain)
    existing = versions(root)
    floor = [document(root, "latest.json")["version"]] if is_hint(root) else []
    number = request.get("version", max([-1, *existing, *floor]) + 1)
    need(number <= 10**12 - 1, "malformed", "no such number")
    if number not in existing:
        need(not existing or number > existing[-1], "conflict", "the number is not the greatest")
    older = [each for each in existing if each < number and is_signed(root, manifest_name(each), key)]
    start = None
    if older and not request.get("full", False):
        document(root, manifest_name(older[-1]))
        start = older[-1], state_of(root, older[-1])
    builder, name = edge(
        root,
        start,
        state,
        number,
        request.get("order", "natural"),
        request.get("values", "step"),
        annotations=notes,
    )
    entries = [builder.file(each, data) for each, data in files.items()]
    mine = json.loads(builder.objects[name])
    mine["files"] = entries
    builder.objects[name] = dumps(mine)
    if not store(root, builder, name, key):
        need(is_signed(root, name, key), "untrusted", "not signed")
        other = document(root, name)
        for member in ("layout", "fingerprint", "base"):
            need(other[member] == mine[member], "conflict", f"another {member}")
        need(file_set(other) == file_set(mine), "conflict", "other files")
    put(root / "latest.json", dumps({"tensordelta": "1.0-rc.1", "chain": mine["chain"], "version": number}))
    return {"version": number}


def is_hint(root: Path) -> bool:
    try:
        return document(root, "latest.json")["chain"] == document(root, "chain.json")["chain"]
    except (OSError, ValueError, KeyError, TypeError):
        return False


def file_set(manifest: dict[str, Any]) -> set[tuple[str, int, str]]:
    return {(each["name"], each["size"], each["sha256"]) for each in manifest.get("files", [])}


def shortcut(request: dict[str, Any]) -> dict[str, Any]:
    root = Path(request["chain"])
    base, to = request["from"], request["to"]
    existing = versions(root)
    need(to in existing and (base is None or base in existing), "missing", "no such version")
    need(base is None or base < to, "malformed", "no older version")
    start = None if base is None else (base, state_of(root, base))
    layout = document(root, manifest_name(to))["layout"]
    order, tag = request.get("order", "natural"), request.get("tag", "")
    builder, name = edge(root, start, state_of(root, to), to, order, "step", tag, layout)
    mine = json.loads(builder.objects[name])
    if not store(root, builder, name):
        other = document(root, name)
        for member in ("layout", "fingerprint", "base"):
            need(other[member] == mine[member], "conflict", f"another {member}")
    return {}


def collect(request: dict[str, Any]) -> dict[str, Any]:
    root, grace = Path(request["chain"]), request["grace"]
    chain = Chain(Folder(root))
    kept: set[str] = set()
    snapshot = Snapshot.of(root)
    for version in {*request["keep"], *pinned(chain, snapshot, grace), *snapshot.versions()[-1:]}:
        kept |= route(chain, version)
    edges = snapshot.names("manifest", "shortcut")
    nodes = {manifest_name(chain.manifest(name).version) for name in kept}
    stay = kept | nodes
    for name in sorted(edges, key=lambda name: name.split("/")[1], reverse=True):
        if name not in stay:
            retire(root, name, grace)
            (root / name).unlink()
    sweep(root, grace)
    return {}


def retire(root: Path, name: str, grace: float) -> None:
    if grace:
        put(root / f"retired/{name}", (root / name).read_bytes())


def sweep(root: Path, grace: float) -> None:
    snapshot = Snapshot.of(root)
    old = {name for name, stamp in snapshot.objects.items() if time.time() - stamp.modified / 1e9 >= grace}
    copies = snapshot.names("copy")
    held = {name: (root / name).read_bytes() for name in snapshot.names("manifest", "shortcut")}
    held |= {name.removeprefix("retired/"): (root / name).read_bytes() for name in copies if name not in old}
    named: set[str] = set()
    signed = {("chain.json", (root / "chain.json").read_bytes()), *held.items()}
    digests = {hashlib.sha256(b"tensordelta:" + name.encode() + b"\n" + data).hexdigest() for name, data in signed}
    for data in held.values():
        manifest = json.loads(data)
        named |= {f"fingerprints/{manifest.get('tensor_fingerprints')}.bin"}
        named |= {each["path"] for each in manifest.get("files", [])}
        if manifest["base"] is None or manifest_name(manifest["base"]["version"]) in held:
            named |= {each["path"] for each in manifest["packs"]}
    for name in snapshot.names("pack", "fingerprints", "file", "signature"):
        if name not in named and name[11:75] not in digests and name in old:
            (root / name).unlink()
    for name in copies:
        if name in old and name.removeprefix("retired/") not in snapshot.objects:
            (root / name).unlink()


def pinned(chain: Chain, snapshot: Snapshot, grace: float) -> set[int]:
    """The versions that pins hold; a pin that breaks a rule is reported while it is young."""
    found = set()
    for name, data in snapshot.pins.items():
        age = time.time() - snapshot.objects[name].modified / 1e9
        try:
            of, version, seconds = parse_pin(data)
        except Rejection:
            if age < grace:
                raise
            continue
        if of == chain.id() and (seconds is None or age < seconds):
            found |= {version} & set(snapshot.versions())
    return found


def route(chain: Chain, version: int) -> set[str]:
    """The edges of a route from nothing to a version."""
    for name in (manifest_name(version), *(name for to, name in chain.shortcuts if to == version)):
        found = chain.manifest(name)
        try:
            before = set() if found.base is None else route(chain, found.base.version)
            chain.follow(found, chain.base_state(found))
        except Rejection:
            continue
        return before | {name}
    raise Refusal("missing", f"no route to {version}")


OPERATIONS = {"publish": publish, "shortcut": shortcut, "collect": collect}


def handle(request: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request."""
    operation = request["op"]
    if operation == "hello":
        return {
            "id": request.get("id"),
            "ok": True,
            "protocol": 1,
            "name": "slow-writer",
            "version": "0",
            "spec": "1.0",
            "roles": ["writer"],
            "levels": LEVELS,
            "capabilities": CAPABILITIES,
        }
    if operation not in OPERATIONS:
        return {"id": request.get("id"), "unsupported": operation}
    try:
        return {"id": request.get("id"), "ok": True, **OPERATIONS[operation](request)}
    except Refusal as refusal:
        return {"id": request.get("id"), "error": refusal.args[0], "message": str(refusal.args[1])}
    except Rejection as fault:
        return {"id": request.get("id"), "error": fault.name, "object": fault.object, "message": str(fault)}
    except (ValueError, KeyError) as error:  # a manifest that is no JSON
        return {"id": request.get("id"), "error": "malformed", "message": repr(error)}


def main(arguments: list[str]) -> int:
    if arguments:
        answer = handle({"op": arguments[0], **json.loads(arguments[1])})
        del answer["id"]
        print(json.dumps(answer), flush=True)
        return 0 if "ok" in answer else 1 if "error" in answer else 3
    for line in sys.stdin:
        print(json.dumps(handle(json.loads(line))), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
