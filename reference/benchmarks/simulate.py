"""Synthetic checkpoints of an AdamW run: bf16 models whose changes look like those of the real traces.

In units of the learning rate, AdamW's step m / (sqrt(v) + eps) is a normal variable of standard deviation about 0.2,
correlated by beta1 = 0.9 from one step to the next (m is a running mean of gradients): u' = 0.9 u + sqrt(1 - 0.9^2) e.
Two regimes, as trainers have them:

- `master_fp32`: u is added to an fp32 master, whose cast to bf16 (nearest, ties to even) is the checkpoint. The masters
  were bf16 words `AGE` steps ago and have walked since; a word changes where its master crosses a rounding boundary.
- `pure_bf16`: u is added to the bf16 weight itself and rounded away unless it is half a unit in the last place, so the
  same small weights change again and again.

Shapes and names are a Llama's. A few rows of the embedding move (tokens that were seen), the rest are still. The scale
of u is found by bisection on a sample, so that the first step changes the wanted share of all words.
The same arguments give the same words, whatever the number of threads.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

Regime = Literal["master_fp32", "pure_bf16"]
State = dict[str, NDArray[np.uint16]]
Floats = NDArray[np.float32]
_T = TypeVar("_T", bound=np.generic)

BETA1 = 0.9
AGE = 400
"""Steps since the masters were bf16 words (the traces: 395): large weights have not yet walked as far as a boundary."""
SEEN_ROWS = 0.03
"""Share of the embedding's rows that move (the traces: 932 of 30522)."""

_THREADS = 2
_BLOCK = 1 << 17  # words: with three fp32 temporaries of this length a thread stays within its caches
_SAMPLE = 1 << 20


@dataclass(frozen=True)
class _Tensor:
    """One tensor: words start as normal variables; `pace` is the scale of each row's updates against the model's."""

    name: str
    shape: tuple[int, ...]
    mean: float
    deviation: float
    pace: Floats  # (rows, 1)

    @property
    def words(self) -> int:
        return math.prod(self.shape)

    @property
    def columns(self) -> int:
        return self.shape[-1]


@dataclass(frozen=True)
class _Block:
    """Some whole rows of a tensor, the unit of work: each has its own random numbers at each step."""

    tensor: int
    number: int
    rows: slice

    def random(self, seed: int, step: int) -> np.random.Generator:
        return np.random.Generator(np.random.SFC64([seed, self.tensor, self.number, step]))


@dataclass
class _Scratch:
    """A thread's temporaries."""

    x: Floats
    u: Floats
    bits: NDArray[np.uint32]


def pair(size: int, *, density: float, regime: Regime, seed: int = 0) -> tuple[State, State]:
    """Two consecutive checkpoints of a model of about `size` bytes, of whose words a share of `density` differs."""
    tensors = _model(size, seed)
    scale = _calibrate(tensors, density, regime, seed)
    old: State = {t.name: np.empty(t.shape, np.uint16) for t in tensors}
    new: State = {t.name: np.empty(t.shape, np.uint16) for t in tensors}

    def work(block: _Block, scratch: _Scratch) -> None:
        tensor = tensors[block.tensor]
        before, after = _rows(old, tensor)[block.rows], _rows(new, tensor)[block.rows]
        x, u, bits = _cut(scratch.x, before.shape), _cut(scratch.u, before.shape), _cut(scratch.bits, before.shape)
        pace = tensor.pace[block.rows] * np.float32(scale)
        _start(tensor, pace, regime, block.random(seed, 0), x, u, before, bits)
        block.random(seed, 1).standard_normal(dtype=np.float32, out=u)
        _step(x, u, pace, regime, after, bits)

    _each_block(tensors, work)
    return old, new


def checkpoints(size: int, steps: int, *, density: float, regime: Regime, seed: int = 0) -> Iterator[State]:
    """Consecutive checkpoints: the first and one after each of `steps` steps; the first two are those of `pair`.

    Holds 8 bytes a word between them; each checkpoint is the caller's own.
    """
    tensors = _model(size, seed)
    scale = _calibrate(tensors, density, regime, seed)
    weights = {t.name: np.empty(t.shape, np.float32) for t in tensors}
    moments = {t.name: np.empty(t.shape, np.float32) for t in tensors}

    for step in range(steps + 1):
        state: State = {t.name: np.empty(t.shape, np.uint16) for t in tensors}

        def work(block: _Block, scratch: _Scratch, step: int = step, state: State = state) -> None:
            tensor = tensors[block.tensor]
            out = _rows(state, tensor)[block.rows]
            x, m = _rows(weights, tensor)[block.rows], _rows(moments, tensor)[block.rows]
            u, bits = _cut(scratch.u, out.shape), _cut(scratch.bits, out.shape)
            pace = tensor.pace[block.rows] * np.float32(scale)
            random = block.random(seed, step)
            if step == 0:
                _start(tensor, pace, regime, random, x, u, out, bits)
                return
            random.standard_normal(dtype=np.float32, out=u)
            if step == 1:
                m[...] = u
            else:
                m *= np.float32(BETA1)
                u *= np.float32(math.sqrt(1 - BETA1**2))
                m += u
                u[...] = m
            _step(x, u, pace, regime, out, bits)

        _each_block(tensors, work)
        yield state


def _model(size: int, seed: int) -> list[_Tensor]:
    """A Llama of about `size` bytes: hidden/64 layers, some 18 % of the words in embedding and head."""
    words = size // 2
    hidden = int((0.82 * words * 64 / 13) ** (1 / 3))
    hidden -= hidden % (64 if hidden >= 512 else 16)
    if hidden < 16:
        raise ValueError(f"{size} bytes are too few for a model")
    kv, inner = hidden // 4, hidden * 7 // 2
    layer = 2 * hidden * (hidden + kv) + 3 * hidden * inner + 2 * hidden
    layers = max(1, int(0.82 * words / layer))
    vocabulary = (words - layers * layer - hidden) // (2 * hidden)
    if vocabulary < 1:
        raise ValueError(f"{size} bytes are too few for a model")

    random = np.random.Generator(np.random.SFC64([seed, 0xC0FFEE]))
    tensors: list[_Tensor] = []

    def add(name: str, shape: tuple[int, ...], deviation: float, mean: float = 0.0) -> None:
        rows = shape[0] if len(shape) == 2 else 1
        pace = np.full((rows, 1), random.uniform(0.85, 1.15), np.float32)
        if name == "model.embed_tokens.weight":
            still = np.ones(rows, bool)
            still[random.permutation(rows)[: math.ceil(SEEN_ROWS * rows)]] = False
            pace *= random.lognormal(0.0, 0.4, (rows, 1)).astype(np.float32)
            pace[still] = 0
        tensors.append(_Tensor(name, shape, mean, deviation * random.uniform(0.85, 1.15), pace))

    add("model.embed_tokens.weight", (vocabulary, hidden), 0.035)
    for i in range(layers):
        prefix = f"model.layers.{i}."
        add(prefix + "input_layernorm.weight", (hidden,), 0.08, 1.0)
        for letter, rows, deviation in (("q", hidden, 0.045), ("k", kv, 0.05), ("v", kv, 0.025), ("o", hidden, 0.03)):
            add(f"{prefix}self_attn.{letter}_proj.weight", (rows, hidden), deviation)
        add(prefix + "post_attention_layernorm.weight", (hidden,), 0.08, 1.0)
        add(prefix + "mlp.gate_proj.weight", (inner, hidden), 0.035)
        add(prefix + "mlp.up_proj.weight", (inner, hidden), 0.03)
        add(prefix + "mlp.down_proj.weight", (hidden, inner), 0.025)
    add("model.norm.weight", (hidden,), 0.08, 1.0)
    add("lm_head.weight", (vocabulary, hidden), 0.03)
    return tensors


def _start(
    tensor: _Tensor,
    pace: Floats,
    regime: Regime,
    random: np.random.Generator,
    x: Floats,
    walk: Floats,
    out: NDArray[np.uint16],
    bits: NDArray[np.uint32],
) -> None:
    """The weights before the first step, into `x`, and their words, into `out`; `walk` and `bits` are scratch."""
    random.standard_normal(dtype=np.float32, out=x)
    if regime == "master_fp32":
        random.standard_normal(dtype=np.float32, out=walk)
    x *= np.float32(tensor.deviation)
    x += np.float32(tensor.mean)
    _begin(x, walk, pace, regime, out, bits)


def _begin(
    x: Floats, walk: Floats, pace: Floats, regime: Regime, out: NDArray[np.uint16], bits: NDArray[np.uint32]
) -> None:
    _to_bf16(x, out, bits)
    _from_bf16(out, x)
    if regime == "master_fp32":
        walk *= pace
        walk *= np.float32(_WALK)
        x += walk
        _to_bf16(x, out, bits)


def _step(
    x: Floats, u: Floats, pace: Floats, regime: Regime, out: NDArray[np.uint16], bits: NDArray[np.uint32]
) -> None:
    """One optimizer step: `x` moves by `u * pace` (which spoils `u`); its words go into `out`."""
    u *= pace
    x += u
    _to_bf16(x, out, bits)
    if regime == "pure_bf16":
        _from_bf16(out, x)


# Standard deviation of the sum of AGE consecutive updates, each of deviation 1, correlated by BETA1.
_WALK = math.sqrt(AGE * (1 + BETA1) / (1 - BETA1) - 2 * BETA1 * (1 - BETA1**AGE) / (1 - BETA1) ** 2)


def _calibrate(tensors: list[_Tensor], density: float, regime: Regime, seed: int) -> float:
    """The scale of updates at which a step changes a share of `density` of the words, from a sample of them."""
    if regime not in get_args(Regime):
        raise ValueError(f"regime {regime!r} is none of {', '.join(get_args(Regime))}")
    if not 0 < density < 1:
        raise ValueError(f"density {density} is not between 0 and 1")
    random = np.random.Generator(np.random.SFC64([seed, 0xBEEF]))
    total = sum(t.words for t in tensors)
    counts = [max(1, round(_SAMPLE * t.words / total)) for t in tensors]
    n = sum(counts)
    start, walk, u, pace = (np.empty(n, np.float32) for _ in range(4))
    at = 0
    for tensor, count in zip(tensors, counts, strict=True):
        part = slice(at, at + count)
        start[part] = random.normal(tensor.mean, tensor.deviation, count)
        # Evenly spread over the sorted paces: the few rows of an embedding that move count with their true share.
        rows = np.sort(tensor.pace[:, 0])
        pace[part] = rows[((np.arange(count) + 0.5) * (len(rows) / count)).astype(np.intp)]
        at += count
    random.standard_normal(dtype=np.float32, out=walk)
    random.standard_normal(dtype=np.float32, out=u)
    before, after, bits = np.empty(n, np.uint16), np.empty(n, np.uint16), np.empty(n, np.uint32)

    low, high = math.log(1e-10), math.log(1.0)
    for _ in range(24):
        middle = (low + high) / 2
        scaled = pace * np.float32(math.exp(middle))
        x = start.copy()
        _begin(x, walk.copy(), scaled, regime, before, bits)
        _step(x, u.copy(), scaled, regime, after, bits)
        if np.count_nonzero(before != after) < density * n:
            low = middle
        else:
            high = middle
    if high == math.log(1.0):
        raise ValueError(f"no step changes {density:.1%} of this model: most of its embedding is still")
    return math.exp((low + high) / 2)


def _to_bf16(x: Floats, out: NDArray[np.uint16], bits: NDArray[np.uint32]) -> None:
    """The nearest bf16 words, ties to even (finite numbers only); `bits` is scratch."""
    whole = x.view(np.uint32)
    np.right_shift(whole, 16, out=bits)
    bits &= np.uint32(1)
    bits += np.uint32(0x7FFF)
    bits += whole
    out[...] = bits.view(np.uint16)[..., 1::2]


def _from_bf16(words: NDArray[np.uint16], x: Floats) -> None:
    whole = x.view(np.uint32)
    whole[...] = words
    whole <<= np.uint32(16)


def _each_block(tensors: list[_Tensor], work: Callable[[_Block, _Scratch], None]) -> None:
    """Does `work` for every block of every tensor, on a few threads."""
    blocks = []
    for index, tensor in enumerate(tensors):
        rows, height = tensor.words // tensor.columns, max(1, _BLOCK // tensor.columns)
        blocks += [_Block(index, i, slice(at, min(at + height, rows))) for i, at in enumerate(range(0, rows, height))]
    longest = max(_BLOCK, *(t.columns for t in tensors))
    local = threading.local()

    def run(block: _Block) -> None:
        if not hasattr(local, "scratch"):
            x, u = np.empty(longest, np.float32), np.empty(longest, np.float32)
            local.scratch = _Scratch(x, u, np.empty(longest, np.uint32))
        work(block, local.scratch)

    with ThreadPoolExecutor(_THREADS) as pool:
        for _ in pool.map(run, blocks):
            pass


def _rows(arrays: dict[str, NDArray[_T]], tensor: _Tensor) -> NDArray[_T]:
    return arrays[tensor.name].reshape(-1, tensor.columns)


def _cut(scratch: NDArray[_T], shape: tuple[int, ...]) -> NDArray[_T]:
    return scratch[: math.prod(shape)].reshape(shape)
