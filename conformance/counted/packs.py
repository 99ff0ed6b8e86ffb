"""Packs, chunk tables, codecs and Zstandard frames (SPEC.md sections 6 and 7)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tensordelta_conformance.small_reader import chunks as decoding
from tensordelta_conformance.small_reader.packs import Chunk, stream_sizes
from tensordelta_conformance.small_reader.state import DTYPES

from .table import Census

WIDTHS = (8, 16, 32, 64)
POSITIONS = ("gap 0", "gap 4", "gap 8", "bitmap", "all")
VALUES = ("step", "replace")
COMPRESSIONS = ("none", "zstd")
COMBINATIONS = [f"natural {positions} {values}" for positions in POSITIONS for values in VALUES] + [
    f"exponent {positions} step" for positions in POSITIONS[:4]
]
STREAMS = ("gaps", "low", "bitmap", "codes", "escapes", "values")
BLOCKS = ("raw", "RLE", "compressed")
MASKED = [name for name, kind in DTYPES.items() if kind.mask]


class Packs:
    """Notes what packs have."""

    def __init__(self, census: Census) -> None:
        self.header = {
            "pad": census.kind("headers of chunk packs: bytes after the object"),
            "odd": census.kind("headers: lengths that no 8 divides"),
            "order": census.kind("headers of chunk packs in an order other than the buffer's"),
            "plain order": census.kind("headers of plain packs in an order other than the buffer's"),
            "buffer": census.kind("streams in an order other than the chunks'"),
            "more": census.kind("further keys of __metadata__ of chunk packs"),
            "last": census.kind("__metadata__ after entries, in chunk packs"),
        }
        self.plain = {
            "metadata": census.kind("__metadata__ of plain packs: keys", needs=("absent",)),
            "pad": census.kind("headers of plain packs: bytes after the object"),
            "foreign": census.kind("tensors of plain packs that the layout lacks"),
            "foreign dtype": census.kind("dtypes of tensors of plain packs that the layout lacks"),
            "empty": census.kind("tensors of plain packs without words"),
            "dtype": census.kind("dtypes of tensors of plain packs", needs=DTYPES),
            "delta": census.kind("plain packs in deltas: how many tensors"),
        }
        self.table = {
            "number": census.kind("chunks of a pack: how many", needs=(1,)),
            "ten": census.kind("packs of eleven chunks and more: how many"),
            "unlike": census.kind("dtypes of the chunks of one pack"),
            "mixed": census.kind("compressions of the chunks of one pack", 1, ("none zstd",)),
        }
        self.slices = {
            "number": census.kind("slices of a chunk: how many", needs=(1, 2)),
            "adjacent": census.kind("slices that are adjacent in one tensor"),
            "apart": census.kind("slices of one tensor that are not adjacent"),
            "inner": census.kind("slices that begin after the first word"),
        }
        self.n = {
            "one": census.kind("chunks of one word, of dtypes"),
            "bits": census.kind("bitmap: n modulo 8", needs=range(8)),
            "codes": census.kind("step: m modulo 4", needs=range(4)),
            "low": census.kind("gap with shift 4: m modulo 2", needs=range(2)),
            "great": census.kind("chunks of more than 65,536 words"),
            "vast": census.kind("chunks of more than 2^24 words"),
            "m": census.kind("chunks of more than 65,536 listed words", 1),
            "all": census.kind("gap or bitmap that lists all words"),
        }
        self.dtypes = {dtype: census.kind(f"chunks of dtype {dtype}: numbers of listed words") for dtype in DTYPES}
        self.combinations = {
            name: census.kind(f"{name}: compressions and widths", 4 if "exp" in name else 5) for name in COMBINATIONS
        }
        self.positions = {
            (name, w): census.kind(f"positions {name} of {w} bits: listed words") for name in POSITIONS for w in WIDTHS
        }
        self.values = {
            (name, w): census.kind(f"values {name} of {w} bits: listed words") for name in VALUES for w in WIDTHS
        }
        self.gaps = {
            (shift, name): census.kind(f"gap with shift {shift}: {name}")
            for shift in (0, 4, 8)
            for name in ("h that 255 divides", "h of 256 and more")
        }
        self.far = census.kind("gap: gaps of 65,536 words and more")
        self.first = census.kind("gap: a first position other than 0")
        self.steps = {
            w: census.kind(f"step of {w} bits: the least and the greatest", 4, ("+1", "-1", f"+{2 ** (w - 1) - 1}",
                                                                                f"-{2 ** (w - 1)}"))
            for w in WIDTHS
        }  # fmt: skip
        self.escapes = {w: census.kind(f"step of {w} bits: escapes", needs=(0, 2**w - 5)) for w in WIDTHS}
        self.no_escapes = census.kind("step without escapes, of bits", needs=WIDTHS)
        self.exponent = {dtype: census.kind(f"order exponent of {dtype}: limits") for dtype in MASKED}
        self.limit = census.kind("order exponent: limit 1, or the greatest, of dtypes")
        self.groups = census.kind("order exponent: groups", needs=("absent", "1", "1 1"))
        self.groups_of = census.kind("order exponent: sizes of groups of several slices")
        self.streams = {
            (stream, how): census.kind(f"stream {stream} under {how}: sizes")
            for stream in STREAMS
            for how in COMPRESSIONS
        }
        self.frame = {
            "checksum": census.kind("frames with a checksum: content sizes"),
            "no checksum": census.kind("frames without a checksum: content sizes"),
            "bit 4": census.kind("frames with the unused bit: content sizes"),
            "blocks": census.kind("frames of several blocks: how many"),
            "last": census.kind("frames whose last block is empty: content sizes"),
            "larger": census.kind("frames longer than their content"),
            "window": census.kind("windows", needs=(2**10, 2**27)),
            "eighths": census.kind("windows that are no power of two"),
        }
        self.flags = {
            (flag, single): census.kind(
                f"frames with {1 << flag} bytes of content size{', of a single segment' if single else ''}"
            )
            for flag in range(4)
            for single in (0, 1)
            if flag or single
        }
        self.blocks = {name: census.kind(f"frames with a {name} block: content sizes") for name in BLOCKS}

    # -- containers ---------------------------------------------------------------------------------------------------

    def chunk_pack(self, data: bytes, header: Mapping[str, Any], case: str) -> None:
        """A chunk pack with its parsed header."""
        length = self._length(data, self.header["pad"], case)
        names = [name for name in header if name != "__metadata__"]
        starts = [int(header[name]["data_offsets"][0]) for name in names]
        if starts != sorted(starts):
            self.header["order"].note(length, case)
        numbers = [int(name.partition(".")[0]) for _, name in sorted(zip(starts, names, strict=True))]
        if numbers != sorted(numbers):
            self.header["buffer"].note(" ".join(map(str, numbers)), case)
        for key in header["__metadata__"]:
            if key != "tensordelta":
                self.header["more"].note(key, case)
        if next(iter(header)) != "__metadata__":
            self.header["last"].note(len(names), case)

    def plain_pack(self, data: bytes, header: Mapping[str, Any], layout: Iterable[str], delta: bool, case: str) -> None:
        """A plain pack with its parsed header."""
        self._length(data, self.plain["pad"], case)
        metadata = header.get("__metadata__")
        self.plain["metadata"].note("absent" if metadata is None else " ".join(metadata), case)
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        starts = [int(entry["data_offsets"][0]) for entry in entries.values()]
        if starts != sorted(starts):
            self.header["plain order"].note(len(data), case)
        known = set(layout)
        for name, entry in entries.items():
            self.plain["dtype"].note(entry["dtype"], case)
            if name not in known:
                self.plain["foreign"].note(name, case)
                self.plain["foreign dtype"].note(entry["dtype"], case)
            if entry["data_offsets"][0] == entry["data_offsets"][1]:
                self.plain["empty"].note(name, case)
        if delta:
            self.plain["delta"].note(len(entries), case)

    def _length(self, data: bytes, pad: Any, case: str) -> int:
        length = int.from_bytes(data[:8], "little")
        header = data[8 : 8 + length]
        pad.note(length - len(header.rstrip(b" \t\r\n")), case)
        if length % 8:
            self.header["odd"].note(length, case)
        return length

    # -- chunks -------------------------------------------------------------------------------------------------------

    def chunk_table(self, found: Sequence[Chunk], raw: Sequence[Mapping[str, Any]], case: str) -> None:
        """The chunks of a pack, and their entries as they stand."""
        self.table["number"].note(len(found), case)
        if len(found) > 10:
            self.table["ten"].note(len(found), case)
        dtypes = sorted({chunk.dtype for chunk in found})
        if len(dtypes) > 1:
            self.table["unlike"].note(" ".join(dtypes), case)
        compressions = sorted({chunk.compression for chunk in found})
        if len(compressions) > 1:
            self.table["mixed"].note(" ".join(compressions), case)
        for chunk, entry in zip(found, raw, strict=True):
            self._entry(chunk, "groups" in entry["order"], case)
            self._streams(chunk, case)

    def _entry(self, chunk: Chunk, has_groups: bool, case: str) -> None:
        n, m, w = chunk.n, chunk.changed, chunk.w
        self.slices["number"].note(len(chunk.slices), case)
        for (tensor, start, stop), (after, begin, _) in zip(chunk.slices, chunk.slices[1:], strict=False):
            if tensor == after:
                self.slices["adjacent" if stop == begin else "apart"].note(f"{start} {stop} {begin}", case)
        for _, start, _ in chunk.slices:
            if start:
                self.slices["inner"].note(start, case)
        for name, condition, value in (
            ("one", n == 1, chunk.dtype),
            ("bits", chunk.positions == "bitmap", n % 8),
            ("codes", chunk.values == "step", m % 4),
            ("low", chunk.shift == 4, m % 2),
            ("great", n > 2**16, n),
            ("vast", n > 2**24, n),
            ("m", m > 2**16, m),
            ("all", n == m and chunk.positions != "all", f"{chunk.positions} {n}"),
        ):
            if condition:
                self.n[name].note(value, case)
        self.dtypes[chunk.dtype].note(m, case)
        positions = f"gap {chunk.shift}" if chunk.positions == "gap" else chunk.positions
        self.combinations[f"{chunk.order} {positions} {chunk.values}"].note(f"{chunk.compression} {w}", case)
        self.positions[positions, w].note(m, case)
        self.values[chunk.values, w].note(m, case)
        if chunk.order == "exponent":
            self.exponent[chunk.dtype].note(chunk.limit, case)
            if chunk.limit in (1, 1 << DTYPES[chunk.dtype].exponent_bits):
                self.limit.note(f"{chunk.limit} {chunk.dtype}", case)
            self.groups.note(" ".join(map(str, chunk.groups)) if has_groups else "absent", case)
            if has_groups and max(chunk.groups) > 1:
                self.groups_of.note(chunk.groups, case)

    def _streams(self, chunk: Chunk, case: str) -> None:
        sizes = stream_sizes(chunk)
        decoded: dict[str, np.ndarray[Any, np.dtype[np.uint8]]] = {}
        for name, stored in chunk.streams.items():
            if chunk.compression == "zstd":
                size = decoding.check_frame(stored, *sizes[name])
                self._frame(stored, size, case)
            else:
                size = len(stored)
            self.streams[name.partition(".")[0], chunk.compression].note(size, case)
            if size <= 1 << 22:
                decoded[name] = decoding._stream(chunk, name)
        if "gaps" in decoded:
            self._gaps(chunk, decoded, case)
        if "codes" in decoded:
            self._codes(chunk, decoded, case)

    def _gaps(self, chunk: Chunk, decoded: Mapping[str, Any], case: str) -> None:
        low = decoded["low"] if chunk.shift else np.zeros(0, np.uint8)
        at = decoding.decode_gap(decoded["gaps"], low, chunk.shift, chunk.changed, chunk.n)
        gaps = np.diff(at, prepend=np.int64(-1)) - 1
        h = gaps >> chunk.shift
        for name, which in (("h that 255 divides", (h > 0) & (h % 255 == 0)), ("h of 256 and more", h >= 256)):
            for each in h[which][:8]:
                self.gaps[chunk.shift, name].note(each, case)
        for each in gaps[gaps >= 65536][:8]:
            self.far.note(each, case)
        if at[0]:
            self.first.note(at[0], case)

    def _codes(self, chunk: Chunk, decoded: Mapping[str, Any], case: str) -> None:
        w = chunk.w
        codes = decoding.unpack_codes(decoded["codes"], chunk.changed)
        for code, step in ((1, "+1"), (0, "-1"), (2, "-2")):
            if (codes == code).any():
                self.steps[w].note(step, case)
        if (codes != 3).all():
            self.no_escapes.note(w, case)
        elif f"escapes.{w // 8 - 1}" in decoded:
            escapes = decoding.join_planes([decoded[f"escapes.{j}"] for j in range(w // 8)])
            for escape in (int(each) for each in np.unique(escapes)[[0, -1]]):
                self.escapes[w].note(escape, case)
            for escape in {int(each) for each in np.unique(escapes)[-2:]}:
                z = escape + 4
                self.steps[w].note(f"-{z // 2 + 1}" if z % 2 else f"+{z // 2}", case)

    def _frame(self, stored: bytes, size: int, case: str) -> None:
        descriptor = stored[4]
        flag, single = descriptor >> 6, descriptor >> 5 & 1
        self.flags[flag, single].note(size, case)
        self.frame["checksum" if descriptor & 4 else "no checksum"].note(size, case)
        if descriptor & 16:
            self.frame["bit 4"].note(size, case)
        if not single:
            base = 1 << 10 + (stored[5] >> 3)
            window = base + base // 8 * (stored[5] & 7)
            self.frame["window"].note(window, case)
            if stored[5] & 7:
                self.frame["eighths"].note(window, case)
        if len(stored) > size:
            self.frame["larger"].note(f"{len(stored)} of {size}", case)
        at, number, last, length = (5 if single else 6) + (1 << flag), 0, 0, 0
        while not last:
            block = int.from_bytes(stored[at : at + 3], "little")
            last, kind, length = block & 1, block >> 1 & 3, block >> 3
            self.blocks[BLOCKS[kind]].note(size, case)
            at += 3 + (1 if kind == 1 else length)
            number += 1
        if number > 1:
            self.frame["blocks"].note(number, case)
        if not length:
            self.frame["last"].note(size, case)
