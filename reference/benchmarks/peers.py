"""The weight-delta encodings in use elsewhere, written anew from their descriptions, as fast as numpy and zstandard go.

| name | used by | per changed tensor |
|---|---|---|
| `int32+bf16` | TRL, raw | int32 flat indices; new words |
| `u16 gaps+bf16` | TRL, gap_delta | gap - 1 (the first from -1): uint16, or uint32 where one does not fit; new words |
| `overwrite+zstd-1` | slime | one zstd-1 frame over: u32 count, u32 byte positions, new bytes |
| `xor+zstd-1` | slime, SkyRL | one zstd-1 frame over: new bytes ^ old bytes, of the whole tensor |

What is left out favours them: no container and no names are written or counted, nothing is compared with the base, and
only the two slime encodings can carry a checksum (xxh3-128 of each new tensor, as their format has it), off by default.
All are lossless. All run on one thread. States hold little-endian words; both states of `encode` have the same layout.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import xxhash
import zstandard
from numpy.typing import NDArray

Words = NDArray[np.unsignedinteger[Any]]
State = Mapping[str, Words]
Positions = NDArray[np.intp]
Parts = tuple[bytes | NDArray[Any], ...]
Encoded = dict[str, Parts]
"""What would be sent: the parts of each changed tensor."""

# Lanes of 8 bytes compared at a time (1 MiB a state): small enough for the caches, large enough that calls cost little.
_BLOCK = 1 << 17


@dataclass(frozen=True)
class Ready:
    """One tensor's update, decoded: `words` go to `positions`, or are xored into the whole tensor if there are none."""

    words: Words
    positions: Positions | None = None
    checksum: bytes | None = None


Decoded = dict[str, Ready]


class Peer(Protocol):
    """An encoding of the difference of two states."""

    name: str
    lossless: bool

    def encode(self, base: State, new: State) -> Encoded: ...

    def size(self, encoded: Encoded) -> int:
        """Bytes to send."""
        ...

    def decode(self, encoded: Encoded) -> Decoded:
        """All that can be done while the state is still in use. Valid until the next call: buffers are used again."""
        ...

    def apply(self, decoded: Decoded, state: State) -> None:
        """Writes into the state's arrays in place."""
        ...

    def decode_apply(self, encoded: Encoded, state: State) -> None:
        """Both in one, for readers that need not keep the pause short."""
        ...


def peers(*, checksum: bool = False) -> list[Peer]:
    """All of them; `checksum` is for those whose format has one."""
    return [Indices(), Gaps(), Overwrite(checksum=checksum), Xor(checksum=checksum)]


class _Encoding(ABC):
    """What the encodings share."""

    lossless = True

    def size(self, encoded: Encoded) -> int:
        return sum(len(p) if isinstance(p, bytes) else p.nbytes for parts in encoded.values() for p in parts)

    def decode(self, encoded: Encoded) -> Decoded:
        return {name: self._ready(parts) for name, parts in encoded.items()}

    def apply(self, decoded: Decoded, state: State) -> None:
        for name, ready in decoded.items():
            _write(ready, state[name])

    def decode_apply(self, encoded: Encoded, state: State) -> None:
        # Tensor by tensor: what was decoded is still in cache when it is applied.
        for name, parts in encoded.items():
            _write(self._ready(parts), state[name])

    @abstractmethod
    def _ready(self, parts: Parts) -> Ready:
        """A tensor's payload, ready to be written."""


class Indices(_Encoding):
    """TRL's raw encoding."""

    name = "int32+bf16"

    def encode(self, base: State, new: State) -> Encoded:
        encoded: Encoded = {}
        for name, old, words in _tensors(base, new):
            if words.size > 1 << 31:
                raise ValueError(f"{name}: {words.size} words do not fit int32 indices")
            positions, values = _changes(old, words)
            if positions.size:
                encoded[name] = positions.astype(np.int32), values
        return encoded

    def _ready(self, parts: Parts) -> Ready:
        indices, values = parts
        # numpy scatters by its own index type; converting here is cheaper than letting it convert on the way.
        return Ready(_array(values), _array(indices).astype(np.intp))


class Gaps(_Encoding):
    """TRL's gap_delta encoding."""

    name = "u16 gaps+bf16"

    def encode(self, base: State, new: State) -> Encoded:
        encoded: Encoded = {}
        for name, old, words in _tensors(base, new):
            positions, values = _changes(old, words)
            if not positions.size:
                continue
            gaps = np.empty_like(positions)
            gaps[0] = positions[0]
            np.subtract(positions[1:], positions[:-1], out=gaps[1:])
            gaps[1:] -= 1
            largest = int(gaps.max())
            if largest >= 1 << 32:
                raise ValueError(f"{name}: a gap of {largest} words does not fit uint32")
            encoded[name] = gaps.astype(np.uint16 if largest < 1 << 16 else np.uint32), values
        return encoded

    def _ready(self, parts: Parts) -> Ready:
        gaps, values = parts
        positions = np.add(_array(gaps), 1, dtype=np.intp)
        positions[0] -= 1
        np.cumsum(positions, out=positions)
        return Ready(_array(values), positions)


class _Frames(_Encoding):
    """slime's encodings: one zstd-1 frame a tensor, and the checksum of the new tensor if asked for."""

    def __init__(self, *, checksum: bool = False) -> None:
        self._checksum = checksum
        self._compressor = zstandard.ZstdCompressor(level=1)
        self._decompressor = zstandard.ZstdDecompressor()

    def _parts(self, payload: NDArray[np.uint8], new: Words) -> Parts:
        frame = self._compressor.compress(payload.data)
        # Hexadecimal, as it stands in the metadata of their safetensors files.
        return (frame, xxhash.xxh3_128_hexdigest(_bytes(new).data).encode()) if self._checksum else (frame,)


class Overwrite(_Frames):
    """slime's overwrite encoding: positions and values of bytes, not of words."""

    name = "overwrite+zstd-1"

    def encode(self, base: State, new: State) -> Encoded:
        encoded: Encoded = {}
        for name, old, words in _tensors(base, new):
            if words.nbytes > 1 << 32:
                raise ValueError(f"{name}: {words.nbytes} bytes do not fit u32 positions")
            positions, values = _changes(_bytes(old), _bytes(words))
            count = positions.size
            if not count:
                continue
            payload = np.empty(4 + 5 * count, np.uint8)
            payload[:4].view(np.uint32)[0] = count
            payload[4 : 4 + 4 * count].view(np.uint32)[:] = positions
            payload[4 + 4 * count :] = values
            encoded[name] = self._parts(payload, words)
        return encoded

    def _ready(self, parts: Parts) -> Ready:
        payload = np.frombuffer(self._decompressor.decompress(_frame(parts)), np.uint8)
        count = int(payload[:4].view(np.uint32)[0])
        positions = payload[4 : 4 + 4 * count].view(np.uint32).astype(np.intp)
        return Ready(payload[4 + 4 * count :], positions, _checksum(parts))


class Xor(_Frames):
    """slime's and SkyRL's xor encoding."""

    name = "xor+zstd-1"

    def __init__(self, *, checksum: bool = False) -> None:
        super().__init__(checksum=checksum)
        self._scratch = np.empty(0, np.uint8)
        self._masks: dict[str, NDArray[np.uint8]] = {}

    def encode(self, base: State, new: State) -> Encoded:
        encoded: Encoded = {}
        for name, old, words in _tensors(base, new):
            before, after = _bytes(old), _bytes(words)
            if not _differ(before, after):
                continue
            mask = self._room(after.nbytes)
            _xor(before, after, mask)
            encoded[name] = self._parts(mask, words)
        return encoded

    def decode(self, encoded: Encoded) -> Decoded:
        decoded: Decoded = {}
        for name, parts in encoded.items():
            size = zstandard.frame_content_size(_frame(parts))
            mask = self._masks.get(name)
            if mask is None or mask.nbytes != size:
                # Kept from update to update: fresh memory of the model's size costs more in page faults than decoding.
                mask = self._masks[name] = np.empty(size, np.uint8)
            decoded[name] = self._decompress(parts, mask)
        return decoded

    def _ready(self, parts: Parts) -> Ready:
        return self._decompress(parts, self._room(zstandard.frame_content_size(_frame(parts))))

    def _decompress(self, parts: Parts, mask: NDArray[np.uint8]) -> Ready:
        # With the whole frame and room for all of it, libzstd decodes straight into `mask`: no window, no copy.
        with self._decompressor.stream_reader(_frame(parts)) as reader:
            if reader.readinto(mask.data) != mask.nbytes:
                raise ValueError("a frame is shorter than its content size")
        return Ready(mask, checksum=_checksum(parts))

    def _room(self, size: int) -> NDArray[np.uint8]:
        if self._scratch.nbytes < size:
            self._scratch = np.empty(size, np.uint8)
        return self._scratch[:size]


def _tensors(base: State, new: State) -> Iterator[tuple[str, Words, Words]]:
    if base.keys() != new.keys():
        raise ValueError("the states have different tensors")
    for name, words in new.items():
        if base[name].shape != words.shape or base[name].dtype != words.dtype:
            raise ValueError(f"{name}: dtype or shape differ")
        yield name, _flat(base[name]), _flat(words)


def _changes(old: Words, new: Words) -> tuple[Positions, Words]:
    """Where two flat rows differ, and the new words there.

    Lanes of 8 bytes are compared first; the few that differ are looked at again word by word, while they are in cache.
    """
    shift = 3 - (new.itemsize.bit_length() - 1)
    lanes = new.size >> shift
    whole = lanes << shift
    old_lanes, new_lanes = old[:whole].view(np.uint64), new[:whole].view(np.uint64)
    differs = np.empty(min(lanes, _BLOCK), bool)
    positions: list[Positions] = []
    values: list[Words] = []
    for start in range(0, lanes, _BLOCK):
        a, b = old_lanes[start : start + _BLOCK], new_lanes[start : start + _BLOCK]
        lane = np.not_equal(a, b, out=differs[: b.size]).nonzero()[0]
        if not lane.size:
            continue
        words = b.take(lane).view(new.dtype)
        changed = (a.take(lane).view(new.dtype) != words).nonzero()[0]
        lane += start
        position = lane.take(changed >> shift)
        position <<= shift
        position += changed & ((1 << shift) - 1)
        positions.append(position)
        values.append(words.take(changed))
    if whole < new.size:
        changed = (old[whole:] != new[whole:]).nonzero()[0]
        positions.append(changed + whole)
        values.append(new[whole:].take(changed))
    if not positions:
        return np.empty(0, np.intp), new[:0]
    return np.concatenate(positions), np.concatenate(values)


def _differ(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> bool:
    """Whether a byte differs; almost always the first block tells."""
    step = 1 << 16
    return any(not np.array_equal(a[at : at + step], b[at : at + step]) for at in range(0, a.size, step))


def _xor(a: NDArray[np.uint8], b: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    whole = a.size & ~7
    lanes = [x[:whole].view(np.uint64) for x in (a, b, out)]
    np.bitwise_xor(lanes[0], lanes[1], out=lanes[2])
    np.bitwise_xor(a[whole:], b[whole:], out=out[whole:])


def _write(ready: Ready, tensor: Words) -> None:
    flat = _flat(tensor)
    if ready.positions is None:
        target = _bytes(flat)
        _xor(target, _bytes(ready.words), target)
    elif ready.words.dtype == flat.dtype:
        flat[ready.positions] = ready.words
    else:  # positions of bytes
        _bytes(flat)[ready.positions] = ready.words
    if ready.checksum is not None and xxhash.xxh3_128_hexdigest(_bytes(flat).data).encode() != ready.checksum:
        raise ValueError("the checksum of a tensor is wrong")


def _flat(array: Words) -> Words:
    if not array.flags.c_contiguous:
        raise ValueError("tensors must be contiguous: a copy would not be written in place")
    return array.reshape(-1)


def _bytes(flat: Words) -> NDArray[np.uint8]:
    return flat.view(np.uint8)


def _array(part: bytes | NDArray[Any]) -> NDArray[Any]:
    assert not isinstance(part, bytes)
    return part


def _frame(parts: Parts) -> bytes:
    assert isinstance(parts[0], bytes)
    return parts[0]


def _checksum(parts: Parts) -> bytes | None:
    if len(parts) == 1:
        return None
    assert isinstance(parts[1], bytes)
    return parts[1]
