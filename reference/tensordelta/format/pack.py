"""Packs: immutable safetensors files of chunks, or of whole tensors (SPEC.md section 6).

`read_pack` checks a pack's header and chunk table without reading a stream; `build_pack` makes a pack of encoded
chunks. Bytes come from a `Blob`, which may be a file, a download, or memory.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from ..codecs.words import DTYPES
from ..errors import MalformedError, UnsupportedError
from . import chunk as chunks
from . import strict_json
from .chunk import Chunk
from .chunk_codec import EncodedChunk
from .layout import Layout
from .manifest import CHUNKS, EXPONENT_ORDER, Manifest, PackEntry, ranges_of
from .names import FormatVersion, Sha256, new_salt, pack_name
from .safetensors import MAX_HEADER, Header, build_header, header_size, parse_header

METADATA_KEY = "tensordelta"

#: Bytes of the streams of a chunk that are read at once; decoding it takes several times that.
_AT_ONCE = 1 << 18

_STREAM = re.compile(r"(0|[1-9][0-9]{0,15})\.(.+)", re.DOTALL)


class Blob(Protocol):
    """Bytes that can be read in any order, by several threads at once."""

    @property
    def size(self) -> int:
        """Number of bytes."""

    def read(self, offset: int, length: int) -> memoryview:
        """The `length` bytes from `offset`; fewer only at the end."""


class ChunkTable(msgspec.Struct, frozen=True):
    """The chunk table, as the pack's metadata holds it (SPEC.md section 6.3)."""

    tensordelta: FormatVersion
    layout: Sha256
    chunks: list[Chunk]


class _RawTable(msgspec.Struct, frozen=True):
    tensordelta: FormatVersion
    layout: Sha256
    chunks: list[Any]


@dataclass(frozen=True)
class ChunkPack:
    """A pack with chunks, whose header and table were checked.

    Attributes:
        label: how errors name the pack.
        chunks: the chunk table.
        streams: for each chunk, where its streams are in the file: name -> (offset, length), in bytes.
    """

    label: str
    chunks: Sequence[Chunk]
    streams: Sequence[Mapping[str, tuple[int, int]]]

    def reader(self, index: int, blob: Blob) -> Callable[[str], memoryview | None]:
        """A function that returns the stored bytes of a chunk's streams by name; None for a stream it does not have."""
        streams = self.streams[index]

        def read(name: str) -> memoryview | None:
            place = streams.get(name)
            return None if place is None else blob.read(*place)

        return read

    def reader_of_all(self, index: int, blob: Blob) -> Callable[[str], memoryview | None]:
        """As `reader`, for one who needs all streams: where they are small and side by side they are read at once."""
        places = self.streams[index].values()
        start = min((offset for offset, _ in places), default=0)
        size = sum(length for _, length in places)
        side_by_side = start + size == max((offset + length for offset, length in places), default=0)
        if not side_by_side or size > _AT_ONCE:
            return self.reader(index, blob)
        return self.reader(index, _Part(blob.read(start, size), start))

    def chunk_label(self, index: int) -> str:
        """How errors name a chunk."""
        return f"{self.label}, chunk {index}"


class _Part:
    """A part of a blob in memory."""

    def __init__(self, data: memoryview, start: int) -> None:
        self._data = data
        self._start = start
        self.size = start + len(data)

    def read(self, offset: int, length: int) -> memoryview:
        """The `length` bytes from `offset` of the blob."""
        return self._data[offset - self._start :][:length]


@dataclass(frozen=True)
class PlainPack:
    """An ordinary checkpoint shard: which tensors of the layout it holds, and where.

    Attributes:
        label: how errors name the pack.
        tensors: tensor index -> offset of its bytes in the file.
    """

    label: str
    tensors: Mapping[int, int]


Pack = ChunkPack | PlainPack


def read_pack(
    blob: Blob,
    entry: PackEntry,
    layout: Layout,
    manifest: Manifest,
    *,
    parsing: Callable[[int], None] = lambda size: None,
) -> Pack:
    """Read a pack's header, and make all checks that need no stream.

    Args:
        blob: the pack's proven bytes.
        entry: the manifest's entry of the pack.
        layout: the manifest's layout.
        manifest: the manifest.
        parsing: called before the header is parsed, with its size; may refuse it.

    Raises:
        MalformedError, UnsupportedError, LimitError: see SPEC.md section 6.
    """
    label = entry.label
    length = header_size(bytes(blob.read(0, 8)), size=blob.size, object=label)
    parsing(length)
    header = bytes(blob.read(8, length))
    if entry.content == CHUNKS:
        chunked = _chunk_pack(header, blob.size, label, layout, manifest)
        held = list({tensor for chunk in chunked.chunks for tensor, _, _ in chunk.slices})
        changed = sum(chunk.changed for chunk in chunked.chunks)
        pack: Pack = chunked
    else:
        plain = _plain_pack(header, blob.size, label, layout)
        held = list(plain.tensors)
        changed = sum(layout.tensors[tensor].words for tensor in plain.tensors)
        pack = plain
    outside = next((tensor for tensor in held if not entry.may_hold(tensor)), None)
    if outside is not None:
        raise MalformedError(
            f"holds tensor {outside}, which is in no range of `tensors`", object=label, rule="TD-MAN-030"
        )
    if entry.changed != changed:
        raise MalformedError(
            f"lists {changed} words, but `changed` is {entry.changed}", object=label, rule="TD-MAN-011"
        )
    return pack


def _chunk_pack(header: bytes, size: int, label: str, layout: Layout, manifest: Manifest) -> ChunkPack:
    parsed = parse_header(header, size=size, object=label, of_chunks=True)
    table = parse_table(parsed.metadata.get(METADATA_KEY), layout=manifest.layout, object=label)
    for index, chunk in enumerate(table):
        where = f"{label}, chunk {index}"
        chunks.check(chunk, layout, object=where)
        if isinstance(chunk.order, chunks.Exponent) and EXPONENT_ORDER not in manifest.features:
            raise MalformedError(
                f"uses {EXPONENT_ORDER}, which the manifest does not list", object=where, rule="TD-MAN-006"
            )
    return ChunkPack(label, table, _streams(parsed, table, label))


def parse_table(text: str | None, *, layout: str, object: str) -> list[Chunk]:
    """Parse a chunk table.

    Args:
        text: the string in the pack's metadata; None where it is absent.
        layout: the digest that the table must name.

    Raises:
        MalformedError, UnsupportedError, LimitError: see SPEC.md section 6.3.
    """
    if text is None:
        raise MalformedError("no chunk table in its metadata", object=object, rule="TD-PCK-010")
    try:
        data = text.encode()
    except UnicodeEncodeError:
        raise MalformedError("the chunk table is not UTF-8", object=object, rule="TD-JSN-001") from None
    raw = strict_json.parse_document(data, _RawTable, object=object, limit=MAX_HEADER, rule="TD-CHK-002")
    if raw.layout != layout:
        raise MalformedError("made for another layout than the manifest's", object=object, rule="TD-CHK-003")
    if not raw.chunks:
        raise MalformedError("a pack without chunks", object=object, rule="TD-CHK-001")
    return [chunks.parse(each, object=f"{object}, chunk {index}") for index, each in enumerate(raw.chunks)]


def _streams(parsed: Header, table: Sequence[Chunk], label: str) -> list[dict[str, tuple[int, int]]]:
    streams: list[dict[str, tuple[int, int]]] = [{} for _ in table]
    allowed = [chunks.stream_names(chunk) for chunk in table]
    for name, entry in parsed.entries.items():
        match = _STREAM.fullmatch(name)
        index = int(match[1]) if match else len(table)
        if match is None or index >= len(table) or not any(match[2] in names for names in allowed[index]):
            raise MalformedError(f"{name!r} is no stream of its chunks", object=label, rule="TD-PCK-012")
        begin, end = entry.data_offsets
        if entry.dtype != "U8" or entry.shape != (end - begin,):
            raise MalformedError(f"the stream {name!r} is not one row of U8", object=label, rule="TD-PCK-008")
        streams[index][match[2]] = (parsed.start + begin, end - begin)
    for index, ((required, optional), found) in enumerate(zip(allowed, streams, strict=True)):
        absent = required - found.keys()
        if not absent and 0 < len(optional & found.keys()) < len(optional):
            absent = optional - found.keys()  # planes of escapes: all or none
        if absent:
            raise MalformedError(
                f"the stream `{min(absent)}` is absent", object=f"{label}, chunk {index}", rule="TD-PCK-013"
            )
    return streams


def _plain_pack(header: bytes, size: int, label: str, layout: Layout) -> PlainPack:
    parsed = parse_header(header, size=size, object=label)
    tensors: dict[int, int] = {}
    for name, entry in parsed.entries.items():
        if entry.dtype not in DTYPES:
            raise UnsupportedError(f"tensor {name!r} has dtype {entry.dtype!r}", object=label, rule="TD-PCK-018")
        index = layout.index.get(name)
        if index is None:
            continue
        wanted = layout.tensors[index]
        if (entry.dtype, entry.shape) != (wanted.dtype, wanted.shape):
            raise MalformedError(
                f"tensor {name!r} is {entry.dtype} {list(entry.shape)}, not {wanted.dtype} {list(wanted.shape)}",
                object=label,
                rule="TD-PCK-015",
            )
        tensors[index] = parsed.start + entry.data_offsets[0]
    if not tensors:
        raise MalformedError("holds no tensor of the layout", object=label, rule="TD-PCK-016")
    return PlainPack(label, tensors)


def check_overlap(packs: Sequence[Pack], layout: Layout, *, object: str) -> None:
    """Check that no word is named twice by the packs of one manifest.

    Raises:
        MalformedError: two slices overlap.
    """
    slices: list[tuple[int, int, int]] = []
    whole: set[int] = set()
    for pack in packs:
        if isinstance(pack, ChunkPack):
            slices += (each for chunk in pack.chunks for each in chunk.slices)
            continue
        twice = whole & pack.tensors.keys()
        if twice:
            name = layout.tensors[min(twice)].name
            raise MalformedError(f"two plain packs hold tensor {name!r}", object=object, rule="TD-MAN-019")
        whole |= {
            tensor for tensor in pack.tensors if layout.tensors[tensor].words
        }  # one without words cannot name a word twice
    end = (-1, 0)
    for tensor, start, stop in sorted(slices):
        if (tensor, start) < end or tensor in whole:
            raise MalformedError(
                f"words {start} to {stop - 1} of tensor {layout.tensors[tensor].name!r} are named twice",
                object=object,
                rule="TD-MAN-019",
            )
        end = (tensor, stop)


@dataclass(frozen=True)
class BuiltPack:
    """A new pack: its description for the manifest, and its bytes in order."""

    entry: PackEntry
    parts: Sequence[bytes]


def build_pack(encoded: Sequence[EncodedChunk], *, layout: str) -> BuiltPack:
    """Make a pack of encoded chunks.

    Args:
        encoded: at least one chunk.
        layout: digest of the layout that the chunks' slices refer to.
    """
    table = ChunkTable(strict_json.VERSION, layout, [each.chunk for each in encoded])
    streams = [
        (f"{index}.{name}", stream) for index, each in enumerate(encoded) for name, stream in each.streams.items()
    ]
    header = build_header(
        ((name, "U8", (len(stream),), len(stream)) for name, stream in streams),
        {METADATA_KEY: strict_json.encode(table).decode()},
    )
    parts = [header, *(stream for _, stream in streams)]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    tensors = [tensor for each in encoded for tensor, _, _ in each.chunk.slices]
    sha256 = digest.hexdigest()
    entry = PackEntry(
        sha256=sha256,
        size=sum(map(len, parts)),
        path=pack_name(sha256, new_salt()),
        content=CHUNKS,
        tensors=ranges_of(tensors),
        changed=sum(each.chunk.changed for each in encoded),
    )
    return BuiltPack(entry, parts)
