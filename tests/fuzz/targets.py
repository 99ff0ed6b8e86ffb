"""The targets: each takes bytes, and raises nothing but the errors that its parser may raise."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache, wraps
from typing import Any

import click
from gallery import CHAIN, MemoryStore, digest, dumps
from signed_chains import KEY, WORKED

import tensordelta as td
from generate.good import good_chain
from tensordelta.cli.options import version_or
from tensordelta.codecs import CodecFault, compression
from tensordelta.format import chunk as chunks
from tensordelta.format import documents, names, pack, safetensors, signature
from tensordelta.format.layout import Layout
from tensordelta.format.manifest import check_features, parse_manifest
from tensordelta.format.strict_json import VERSION
from tensordelta.read.proven import MemoryBlob
from tensordelta.state.index import read_index
from tensordelta.stores import open_store
from tensordelta.write.descriptors import Document, read_descriptors
from tensordelta.write.keys import public_key, secret_key

Target = Callable[[bytes], object]

#: Bytes that a target's reader may use.
MEMORY = 16 << 20

TARGETS: dict[str, Target] = {}


def target(function: Target) -> Target:
    """Register a target under its function's name, with `-` for `_`. Errors of data are what it may raise."""

    @wraps(function)
    def run(data: bytes) -> None:
        with suppress(td.TensorDeltaError):
            function(data)

    TARGETS[function.__name__.replace("_", "-")] = run
    return function


# -- documents ---------------------------------------------------------------------------------------------------------


@target
def chain(data: bytes) -> None:
    """chain.json."""
    documents.parse_chain(data)


@target
def latest(data: bytes) -> None:
    """latest.json."""
    documents.parse_latest(data)


@target
def pin(data: bytes) -> None:
    """A pin, read and shown."""
    store = MemoryStore({"chain.json": WORKED, "pins/a.json": data})
    for each in td.open(store).pins():
        str(each), each.holds(1e9), each.expires, each._repr_html_()


@target
def manifest(data: bytes) -> None:
    """A manifest; what is accepted is written as what it was read as."""
    found = parse_manifest(data, version=1)
    check_features(found, object="manifests/000000000001.json")
    assert parse_manifest(found.encode(), version=1) == found


@target
def shortcut(data: bytes) -> None:
    """A shortcut from 0 to 2."""
    parse_manifest(data, version=2, base=0, tag="a")


@target
def layout(data: bytes) -> None:
    """A layout; what is accepted is written as what it was read as."""
    found = Layout.parse(data, sha256=digest(data))
    assert Layout.parse(found.encode(), sha256=digest(found.encode())) == found
    assert found.words >= 0 and found.nbytes >= 0


@target
def signature_object(data: bytes) -> None:
    """A signature object, of a key that is trusted."""
    signature.Message("chain.json", WORKED).signers([KEY], lambda _: data, enough=1)


@target
def draft(data: bytes) -> None:
    """A draft, as a rank gets it."""
    _standard().join(data)


@target
def descriptor(data: bytes) -> None:
    """What a rank says that it has put."""
    read_descriptors([data], Document(VERSION, CHAIN, 3, 0, None, "0" * 64, None))


@target
def index(data: bytes) -> None:
    """The index of a checkpoint's files."""
    read_index(data, object="model.safetensors.index.json")


# -- objects of bytes --------------------------------------------------------------------------------------------------


@cache
def _objects() -> dict[str, bytes]:
    return dict(good_chain("combination-natural-gap4-step").objects)


def _standard() -> td.Chain:
    return td.open(MemoryStore(dict(_objects())), threads=1, memory=MEMORY)


@target
def fingerprints(data: bytes) -> None:
    """A fingerprints object, whose digest is right."""
    opened = _standard()
    own = opened.manifest(1)
    opened._reader.store.objects[f"fingerprints/{digest(data)}.bin"] = data  # type: ignore[attr-defined]
    name = names.manifest_name(1)
    changed = _objects()[name].replace(str(own.tensor_fingerprints).encode(), digest(data).encode())
    opened._reader.store.objects[name] = changed  # type: ignore[attr-defined]
    opened._reader.documents.forget(1)
    opened.tensor_fingerprints(1)


@target
def safetensors_header(data: bytes) -> None:
    """The header of a chunk pack, after its length."""
    safetensors.parse_header(data, size=8 + len(data) + 100, object="pack", of_chunks=True)


@target
def plain_header(data: bytes) -> None:
    """The header of a checkpoint file, after its length."""
    safetensors.parse_header(data, size=8 + len(data) + 100, object="pack")


@target
def header_size(data: bytes) -> None:
    """The first bytes of a safetensors file."""
    safetensors.header_size(data[:8], size=len(data), object="pack")


@target
def chunk_table(data: bytes) -> None:
    """A chunk table, and all that is checked of it without a stream."""
    opened = _standard()
    held = opened.layout(1)
    text = data.decode("utf-8", "surrogatepass" if data[:1] != b"!" else "replace") if _decodes(data) else None
    for each in pack.parse_table(text, layout=opened.manifest(1).layout, object="pack"):
        chunks.check(each, held, object="chunk")
        assert each.memory >= 0 and each.words >= each.changed > 0


def _decodes(data: bytes) -> bool:
    try:
        data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data[:1] == b"!"
    return True


@target
def whole_pack(data: bytes) -> None:
    """A pack with a digest that is right, in the place of another one: read, decoded and proven by a reader."""
    objects = dict(_objects())
    name, entry = names.manifest_name(1), _standard().manifest(1).packs[0]
    path = names.pack_name(digest(data), "0" * 16)
    for field, value in (("path", path), ("sha256", digest(data))):
        objects[name] = objects[name].replace(str(getattr(entry, field)).encode(), value.encode())
    objects[name] = objects[name].replace(b'"size":%d' % entry.size, b'"size":%d' % len(data))
    objects[path] = data
    reader = td.open(MemoryStore(objects), threads=1, memory=MEMORY)
    state = _held().copy()
    before = [state.words(number).tobytes() for number in range(len(state.layout))]
    try:
        reader.prepare(state, 1)
        assert data == _objects()[str(entry.path)] or _same_words(reader), "other words were accepted"
    finally:
        assert [state.words(number).tobytes() for number in range(len(state.layout))] == before


@cache
def _held() -> td.State:
    return _standard().load(0)


@cache
def _right() -> td.State:
    return _standard().load(1)


def _same_words(reader: td.Chain) -> bool:
    return reader.load(1).equals(_right())


@target
def plain_pack(data: bytes) -> None:
    """A checkpoint file as a pack."""
    held = _standard().layout(1)
    length = safetensors.header_size(data[:8], size=len(data), object="pack")
    found = pack._plain_pack(bytes(MemoryBlob(memoryview(data)).read(8, length)), len(data), "pack", held)
    for number, offset in found.tensors.items():
        assert 8 + length <= offset <= len(data) - held.tensors[number].nbytes


@target
def zstd_frame(data: bytes) -> None:
    """A zstd frame: its header, and its content where that is said to be small."""
    with suppress(CodecFault):
        size = compression.content_size(data)
        if size <= MEMORY:
            assert len(compression.decompress(data, size)) == size


# -- what users write --------------------------------------------------------------------------------------------------


@target
def object_name(data: bytes) -> None:
    """Names in a listing, and paths of a manifest."""
    text = data.decode("utf-8", "replace")
    version, edge, pinned = names.parse_manifest_name(text), names.parse_shortcut_name(text), names.parse_pin_name(text)
    assert version is None or names.manifest_name(version) == text
    assert edge is None or names.shortcut_name(*edge) == text
    assert pinned is None or names.pin_name(pinned) == text
    if names.is_path(text):
        assert ".." not in text.split("/") and not text.startswith("/") and text.isascii()
    names.check_path(text, prefix="packs/", object="manifest")


@target
def address(data: bytes) -> None:
    """The address of a chain on the command line; nothing is asked of a network."""
    text = data.decode("utf-8", "replace")
    with suppress(ValueError, ImportError, FileNotFoundError):  # there may be no such user, whose home is named
        open_store(text)


@target
def version_option(data: bytes) -> None:
    """A version on the command line."""
    with suppress(click.BadParameter):
        version = version_or("full")(None, None, data.decode("utf-8", "replace"))  # type: ignore[arg-type]
        assert version is None or 0 <= version <= names.MAX_VERSION


@target
def key(data: bytes) -> None:
    """Keys as users write them."""
    read: Any
    for read in (public_key, secret_key):
        with suppress(ValueError):
            read(data)


def sealed(data: bytes) -> bytes:
    """Bytes with their SHA-256 at the end."""
    return data + hashlib.sha256(data).digest()


def as_json(value: object) -> bytes:
    """A document of a corpus."""
    return dumps(value)
