"""Mutants of `codecs.py`: frames, and the codecs of positions, order and values."""

from __future__ import annotations

from .change import Change


def _change(name: str, title: str, old: str, new: str, *cases: str, also: tuple[str, str] | None = None) -> Change:
    return Change(name, title, "codecs", ((old, new), also) if also else ((old, new),), cases)


STREAMS = [
    # -- streams ------------------------------------------------------------------------------------------------------
    _change(
        "stream-sizes-at-least",
        "A stream may be longer than it has to be",
        'require(lowest <= len(stored) <= highest, "malformed", f"the size of stream {name}")',
        'require(lowest <= len(stored), "malformed", f"the size of stream {name}")\n'
        "    chunk.streams[name] = stored if name == 'gaps' else stored[:highest]",
        "codes-longer",
        "bitmap-longer",
    ),
    _change(
        "escapes-of-no-code",
        "Streams escapes.j are ignored where no code is 3",
        'require(len(escaped) or "escapes.0" not in chunk.streams, "malformed", "escapes, but no code is 3")',
        "pass",
        "escapes-of-no-code",
    ),
    _change(
        "escapes-of-any-number",
        "There may be more escapes than codes of 3",
        '            _check_size(chunk, f"escapes.{j}", len(escaped), len(escaped))\n'
        '        escapes = _planes(chunk, "escapes")',
        '            pass\n        escapes = _planes(chunk, "escapes")[: len(escaped)]',
        "escapes-all-longer",
        "escapes-all-longer-in-a-frame",
    ),
    _change(
        "frame-checksum-flag-ignored",
        "A zstd frame need not have a checksum",
        'require(descriptor >> 2 & 1 == 1, "malformed", "no checksum")\n',
        "pass\n",
        "frame-without-a-checksum",
        also=("require(at + 4 == len(stored)", "require(at + (descriptor & 4) == len(stored)"),
    ),
    _change(
        "frame-content-size-ignored",
        "The content size of a frame says nothing",
        'require(lowest <= size <= highest, "malformed", f"content size {size} is not in [{lowest}, {highest}]")',
        "pass",
        "codes-longer-in-a-frame",
    ),
    _change(
        "second-frame-ignored",
        "What follows the frame is ignored",
        'require(at + 4 == len(stored), "malformed", "the stored bytes do not end where the frame ends")',
        'require(at + 4 <= len(stored), "malformed", "the zstd frame is cut off")',
        "frame-before-a-second",
        "frame-before-a-byte",
    ),
    _change(
        "frame-window-ignored",
        "A frame may have any window",
        'require(window <= WINDOW, "malformed", "a window over 2^27")',
        "pass",
        "frame-of-a-window-beyond-128-mib",
    ),
    _change(
        "frame-of-16-bit-sizes",
        "256 is not added to a content size of two bytes",
        "size = take(at, 1 << flag) + (256 if flag == 1 else 0)",
        "size = take(at, 1 << flag)",
        "frame-of-a-size-of-2-bytes",
    ),
    # -- positions ----------------------------------------------------------------------------------------------------
    _change(
        "gap-one-more",
        "A gap counts the listed word before it",
        "places = np.cumsum((h << chunk.shift | low) + 1) - 1",
        "places = np.cumsum((h << chunk.shift | low) + 1)",
        "gap-worked-with-shift-0",
    ),
    _change(
        "gap-without-its-end",
        "The byte after an escape of 255 begins a gap of its own",
        "    ends = np.flatnonzero(gaps < 255)\n",
        "    gaps = np.concatenate([np.zeros(0, np.uint8), gaps[np.append(True, gaps[:-1] < 255)]])\n"
        "    ends = np.flatnonzero(gaps <= 255)\n",
        "gap-of-256",
    ),
    _change(
        "gap-escape-of-256",
        "A byte 255 stands for 256",
        "np.cumsum(gaps.astype(np.int64))",
        "np.cumsum(gaps + (gaps == 255).astype(np.int64))",
        "gap-of-255",
        "gap-of-510",
    ),
    _change(
        "gap-signed-bytes",
        "The bytes of gaps are read with a sign",
        "np.cumsum(gaps.astype(np.int64))",
        "np.cumsum(np.where(gaps == 255, 255, gaps.view(np.int8).astype(np.int64)))",
        "gap-of-254",
    ),
    _change(
        "gap-low-added",
        "The low part is added before the shift",
        "h << chunk.shift | low",
        "h + low << chunk.shift",
        "gap-worked-with-shift-4",
    ),
    _change(
        "gap-nibbles-swapped",
        "The high nibble of `low` comes first",
        "np.stack([pairs & 15, pairs >> 4], axis=1)",
        "np.stack([pairs >> 4, pairs & 15], axis=1)",
        "gap-worked-with-shift-4",
    ),
    _change(
        "gap-nibble-padding-ignored",
        "The unused nibble of `low` may have any value",
        'require(not nibbles[chunk.m :].any(), "malformed", "a padding nibble is not zero")',
        "pass",
        "gap-low-with-1-in-its-unused-nibble",
    ),
    _change(
        "gap-trailing-255-ignored",
        "`gaps` may end with bytes 255",
        'require(gaps[-1] < 255, "malformed", "`gaps` ends with 255")',
        "pass",
        "gaps-end-with-255",
    ),
    _change(
        "positions-of-32-bits",
        "Positions are computed in 32 bits",
        "places = np.cumsum((h << chunk.shift | low) + 1) - 1",
        "places = (np.cumsum((h << chunk.shift | low) + 1) - 1) % 2**32 % chunk.n",
        "position-past-the-end-modulo-2-32",
    ),
    _change(
        "positions-unchecked",
        "A position past the end is the last word",
        'require(places[-1] < chunk.n, "malformed", "a position is not less than n")',
        "places = np.minimum(places, chunk.n - 1)",
        "position-just-past-the-end",
    ),
    _change(
        "bitmap-highest-bit-first",
        "The highest bit of a byte of the bitmap comes first",
        'bitorder="little")',
        'bitorder="big")',
        "bitmap-worked",
    ),
    _change(
        "bitmap-padding-ignored",
        "The padding bits of the bitmap are ignored",
        'require(not bits[chunk.n :].any(), "malformed", "a padding bit of `bitmap` is set")',
        "pass",
        "bitmap-with-a-padding-bit",
    ),
    _change(
        "bitmap-count-ignored",
        "The bits of the bitmap beyond `changed` are ignored",
        'require(len(places) == chunk.m, "malformed", "`bitmap` has another number of bits set")',
        "places = np.resize(places, chunk.m)",
        "bitmap-with-a-bit-more",
    ),
    # -- order exponent -----------------------------------------------------------------------------------------------
    _change(
        "exponent-unstable",
        "Words of equal exponents stand in the reverse of their order",
        'first[np.argsort(keys[first], kind="stable")]',
        'first[::-1][np.argsort(keys[first][::-1], kind="stable")]',
        "exponent-is-stable-in-two-classes",
    ),
    _change(
        "exponent-greatest-first",
        "The greatest exponents come first",
        'np.argsort(keys[first], kind="stable")',
        'np.argsort(-keys[first].astype(np.int64), kind="stable")',
        "exponent-worked-with-limit-121",
    ),
    _change(
        "exponent-with-the-sign",
        "The sign bit takes part in the exponent",
        "np.uint64(kind.mask)) >> np.uint64(kind.shift)",
        "np.uint64(kind.mask << 1 | kind.mask)) >> np.uint64(kind.shift)",
        "exponent-worked-with-limit-256",
    ),
    _change(
        "exponent-limit-included",
        "The exponent `limit` is among the sorted ones",
        "    first = np.flatnonzero(keys < chunk.limit)\n    rest = np.flatnonzero(keys >= chunk.limit)\n",
        "    first = np.flatnonzero(keys <= chunk.limit)\n    rest = np.flatnonzero(keys > chunk.limit)\n",
        "exponent-worked-with-limit-120",
    ),
    _change(
        "exponent-rest-sorted",
        "The words from `limit` on are sorted as well",
        "    first = np.flatnonzero(keys < chunk.limit)\n    rest = np.flatnonzero(keys >= chunk.limit)\n",
        "    first = np.arange(chunk.n)\n    rest = first[:0]\n",
        "exponent-worked-with-limit-121",
    ),
    _change(
        "exponent-values-by-number",
        "Values are in the order of the natural numbers",
        "places = _exponent_permutation(chunk, base)[places]",
        "places = np.sort(_exponent_permutation(chunk, base)[places])",
        "exponent-values-are-in-the-order-of-the-positions",
    ),
    _change(
        "exponent-inverse",
        "Position r is the place of word r among the sorted",
        "places = _exponent_permutation(chunk, base)[places]",
        "places = np.argsort(_exponent_permutation(chunk, base))[places]",
        "exponent-worked-with-limit-121",
    ),
    # -- values -------------------------------------------------------------------------------------------------------
    _change(
        "planes-highest-first",
        "The planes are in the reverse order",
        "np.uint64(8 * j) for j in range(w // 8)]",
        "np.uint64(w - 8 - 8 * j) for j in range(w // 8)]",
        "replace-worked-f32",
        "step-planes-of-64-bits",
    ),
    _change(
        "codes-highest-first",
        "The first code of a byte is in its highest bits",
        "np.uint64(2 * q) & np.uint64(3) for q in range(4)]",
        "np.uint64(6 - 2 * q) & np.uint64(3) for q in range(4)]",
        "step-codes-worked",
    ),
    _change(
        "codes-padding-ignored",
        "The padding bits of `codes` are ignored",
        'require(not codes[chunk.m :].any(), "malformed", "a padding bit of `codes` is set")',
        "pass",
        "codes-with-the-first-padding-bit",
        "codes-with-a-padding-code-of-3",
    ),
    _change(
        "escape-bound-ignored",
        "An escape may be greater than 2^w - 5",
        'require(int(escapes.max()) <= 2**w - 5, "malformed", "an escape over 2^w - 5")',
        "pass",
        "escape-of-2-16-minus-4",
        "escape-of-2-8-minus-1",
    ),
    _change(
        "escape-bound-one-less",
        "An escape has to be less than 2^w - 5",
        "int(escapes.max()) <= 2**w - 5",
        "int(escapes.max()) < 2**w - 5",
        "step-greatest-escape-of-16-bits",
        "step-greatest-escape-of-64-bits",
    ),
    _change(
        "escape-without-3",
        "An escape is the number itself",
        "y[escaped] += escapes",
        "y[escaped] = escapes",
        "step-escapes-only",
    ),
    _change(
        "step-signs-swapped",
        "Even numbers are steps forth",
        "np.where(z & np.uint64(1), ~half, half)",
        "np.where(z & np.uint64(1), half + np.uint64(1), ~half + np.uint64(1))",
        "step-worked-of-16-bits",
    ),
    _change(
        "step-saturates",
        "A step stops at the end of the range",
        "    return base + np.where(z & np.uint64(1), ~half, half)",
        "    forth, top = z & np.uint64(1) == 0, np.uint64(2**w - 1)\n"
        "    return np.where(forth, base + np.minimum(half, top - base), base - np.minimum(half + np.uint64(1), base))",
        "step-wraps-at-16-bits",
        "step-wraps-at-64-bits",
    ),
    _change(
        "step-of-the-number",
        "Steps are y, and not y + 1",
        "z = y + np.uint64(1)",
        "z = y",
        "step-codes-worked",
    ),
]
