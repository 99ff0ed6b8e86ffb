"""How fast a case's first step is encoded, decoded and applied, and its states scanned.

Everything timed is checked once to have done its work.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import peers
from cases import Case, arrays
from numpy.typing import NDArray
from sizes import ORDERS, Step
from timing import Contestant, Figure, Times, in_turn, note

import tensordelta as td
from tensordelta.codecs.words import Words
from tensordelta.state.state import State
from tensordelta.tables import Table
from tensordelta.write.encoder import Codecs, Comparison, Encoder, Order

XOR = "xor+zstd-1"
#: The bare comparison of two models: `np.flatnonzero(base != new)`, tensor by tensor.
BARE = "bare: numpy finds the words"
#: Less than a comparison that is of use: `base != new` alone, into a mask that is there.
FLAGS = "numpy's flags alone"

#: Where objects lie in memory, and the room that they need there.
_SHM = Path("/dev/shm")
_SHM_ROOM = 256 << 20
#: Lanes of 8 bytes compared at a time: what is read and written stays in the caches.
_BLOCK = 1 << 17
#: Lanes that a thread takes at a time.
_STRETCH = 1 << 21


@dataclass(frozen=True)
class Speed:
    """Timings of one case.

    Attributes:
        times: by table, the contestants' times.
        figures: the figures drawn from them.
    """

    times: Mapping[str, Mapping[str, Times]]
    figures: Sequence[Figure]

    def facts(self, nbytes: int) -> dict[str, object]:
        """What the JSON holds."""
        return {
            "times": {name: [each.facts(nbytes) for each in times.values()] for name, times in self.times.items()},
            "figures": [figure.facts() for figure in self.figures],
        }

    def tables(self, nbytes: int) -> Iterator[Table]:
        for title, times in self.times.items():
            rows = [
                [each.name, f"{nbytes / each.median / 1e9:.2f}", _ms(each.median), _ms(each.least)]
                for each in times.values()
            ]
            yield Table(title.upper(), ["<", "GB/s of model", "median ms", "min ms"], rows)
        yield figures_table("FIGURES", self.figures)


def figures_table(title: str, figures: Sequence[Figure]) -> Table:
    rows = [[each.name, f"{each.value:.2f} {each.unit}", each.target, each.mark] for each in figures]
    return Table(title, ["<", "value", "<target", "<"], rows)


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:.2f}"


def blocks(threads: int) -> str:
    """How tables call the bare reading of both models."""
    return f"comparison in blocks of u64{'' if threads == 1 else f', {threads} threads'}"


def ours(order: Order = "natural", threads: int = 1) -> str:
    """How tables call tensordelta."""
    return f"tensordelta, {order} order{'' if threads == 1 else f', {threads} threads'}"


class Bench:
    """Times one case's first step.

    Args:
        case: its states lie in memory and remember their fingerprints.
        store: a folder with the step's objects.
        steps: where the step lies in the chain.
        threads: thread counts above one.
        rounds: how often everything is timed.
    """

    def __init__(
        self, case: Case, store: Path, steps: Mapping[Order, Step], threads: Sequence[int], rounds: int
    ) -> None:
        self._case = case
        self._store = store
        self._steps = steps
        self._threads = threads
        self._rounds = rounds
        self._base, self._new = case.states
        self._chain_id = td.open(store).id
        self._layout = hashlib.sha256(self._base.layout.encode()).hexdigest()
        # What is decoded is written here; always brought back to the base.
        self._live = self._base.copy()
        self._live_arrays = arrays(self._live)

    def run(self) -> Speed:
        """Time everything."""
        note("  encode")
        encode = in_turn(self._encoders(), self._rounds)
        note("  decode, check and apply")
        decode = in_turn(self._decoders(), self._rounds)
        note("  apply")
        apply = in_turn(self._appliers(), self._rounds)
        note("  scan")
        scan = in_turn(self._scanners(), self._rounds)
        times = {
            "encode": encode,
            "decode, check and apply": decode,
            "apply": apply,
            "scan of the whole model": scan,
        }
        return Speed(times, self._figures(encode, decode, apply, scan))

    # -- encode -------------------------------------------------------------------------------------------------------

    def _encoders(self) -> Iterator[Contestant]:
        base, new = arrays(self._base), arrays(self._new)
        found = {peer.name: peer for peer in peers.peers()}
        yield self._encoder("natural", 1)
        yield _peer_encoder(found.pop(XOR), base, new)
        mask = np.zeros(max(map(len, base.values())), np.bool_)
        yield Contestant(BARE, lambda: _find(base, new))
        yield Contestant(FLAGS, lambda: _compare(base, new, mask))
        for threads in self._threads:
            yield self._encoder("natural", threads)
            yield self._encoder("exponent", threads)
        for threads in (1, *self._threads):
            yield Contestant(blocks(threads), partial(_compare_blocks, base, new, threads), threads=threads)
        for peer in found.values():
            yield _peer_encoder(peer, base, new)
        yield self._encoder("exponent", 1)

    def _encoder(self, order: Order, threads: int) -> Contestant:
        encoder: Encoder | None = None

        def encode() -> None:
            nonlocal encoder
            sums = None if self._base is None else self._base.sums(threads=threads)
            compared = Comparison.of_states(self._base, self._new, self._layout, sums)
            encoder = Encoder(compared, Codecs(order=order), threads=threads)
            for _ in encoder.packs():
                pass

        def right() -> bool:
            assert encoder is not None
            return np.array_equal(encoder.sums, self._new.sums()) and encoder.changed == self._case.changed

        return Contestant(ours(order, threads), encode, right=right, threads=threads)

    # -- decode -------------------------------------------------------------------------------------------------------

    def _decoders(self) -> Iterator[Contestant]:
        base, new = arrays(self._base), arrays(self._new)
        found = {peer.name: peer for peer in peers.peers()}
        yield self._decoder("natural", 1)
        yield self._peer_decoder(found.pop(XOR), base, new)
        for threads in self._threads:
            yield self._decoder("natural", threads)
            yield self._decoder("exponent", threads)
        for peer in found.values():
            yield self._peer_decoder(peer, base, new)
        yield self._decoder("exponent", 1)

    def _prepare(self, order: Order, chain: td.Chain) -> td.Update:
        self._live.chain, self._live.version = self._chain_id, self._steps[order].base
        return chain.prepare(self._live, self._steps[order].version)

    def _decoder(self, order: Order, threads: int) -> Contestant:
        chain = td.open(self._store, threads=threads)
        update: td.Update | None = None

        def before() -> None:
            nonlocal chain
            chain = td.open(self._store, threads=threads)  # a new one: it has read no manifest and no layout yet

        def decode() -> None:
            nonlocal update
            update = self._prepare(order, chain)
            update.apply(threads=threads)

        def after() -> None:
            nonlocal update
            assert update is not None
            update.undo()
            update = None

        return Contestant(ours(order, threads), decode, before, after, self._is_new, threads)

    def _peer_decoder(self, peer: peers.Peer, base: peers.State, new: peers.State) -> Contestant:
        encoded = peer.encode(base, new)
        return Contestant(
            peer.name, lambda: peer.decode_apply(encoded, self._live_arrays), None, self._reset, self._is_new
        )

    def _is_new(self) -> bool:
        return self._live.equals(self._new)

    def _reset(self) -> None:
        """Bring back the base, where something else than an update has written."""
        for change in self._case.changes:
            self._live.words(change.tensor)[change.indices] = change.old

    # -- apply --------------------------------------------------------------------------------------------------------

    def _appliers(self) -> Iterator[Contestant]:
        update = self._prepare("natural", td.open(self._store, threads=1))
        for threads in (1, *self._threads):
            yield Contestant(
                ours(threads=threads),
                partial(update.apply, threads=threads),
                None,
                update.undo,
                self._is_new,
                threads,
            )
        yield Contestant("bare scatter (numpy)", self._scatter, None, self._reset, self._is_new)
        xor = next(peer for peer in peers.peers() if peer.name == XOR)
        encoded = xor.encode(arrays(self._base), arrays(self._new))
        yield Contestant(f"{XOR}, decode before it", lambda: xor.decode(encoded))
        decoded = xor.decode(encoded)
        yield Contestant(
            f"{XOR}, apply", lambda: xor.apply(decoded, self._live_arrays), None, self._reset, self._is_new
        )

    def _scatter(self) -> None:
        for change in self._case.changes:
            self._live.words(change.tensor)[change.indices] = change.new

    # -- scan ---------------------------------------------------------------------------------------------------------

    def _scanners(self) -> Iterator[Contestant]:
        words = [self._base.words(tensor) for tensor in range(len(self._base.layout))]
        known = self._base.fingerprint()

        found = ""

        def scan(threads: int) -> None:
            nonlocal found
            found = State(self._base.layout, words).fingerprint(threads=threads)

        def sha256() -> None:
            digest = hashlib.sha256()
            for each in words:
                digest.update(each.data)

        for threads in (1, *self._threads):
            name = f"fingerprint{'' if threads == 1 else f', {threads} threads'}"
            yield Contestant(name, partial(scan, threads), right=lambda: found == known, threads=threads)
        yield Contestant("SHA-256", sha256)

    # -- figures ------------------------------------------------------------------------------------------------------

    def _figures(
        self,
        encode: Mapping[str, Times],
        decode: Mapping[str, Times],
        apply: Mapping[str, Times],
        scan: Mapping[str, Times],
    ) -> list[Figure]:
        case = self._case
        one = ours()
        decode_target = 1.5 if case.near(0.01) else 2.0 if case.near(0.002) else None
        figures = [
            Figure(
                f"encode, times as fast as {XOR}",
                encode[one].against(encode[XOR]),
                "x",
                least=1.2 if case.near(0.01) else None,
            ),
            Figure(
                "encode, times as fast as numpy finding the words",
                encode[one].against(encode[BARE]),
                "x",
                least=0.55,
            ),
            Figure("encode, times as fast as numpy's flags alone", encode[one].against(encode[FLAGS]), "x"),
            Figure(f"decode, times as fast as {XOR}", decode[one].against(decode[XOR]), "x", least=decode_target),
            Figure(
                f"apply, times shorter than the decode of {XOR}",
                apply[one].against(apply[f"{XOR}, decode before it"]),
                "x",
                least=10,
            ),
            *(
                Figure(
                    f"apply with {threads} threads, times shorter than the decode of {XOR}",
                    apply[ours(threads=threads)].against(apply[f"{XOR}, decode before it"]),
                    "x",
                )
                for threads in self._threads
            ),
            Figure(f"apply, times shorter than decode and apply of {XOR}", apply[one].against(decode[XOR]), "x"),
            Figure(
                "apply, times as long as the bare scatter",
                1 / apply[one].against(apply["bare scatter (numpy)"]),
                "x",
                most=3,
            ),
            Figure("scan, times as fast as SHA-256", scan["fingerprint"].against(scan["SHA-256"]), "x", least=1),
        ]
        for threads in self._threads:
            for name, times, least in (("encode", encode, 1.6), ("decode", decode, 1.5)):
                figures += [
                    Figure(
                        f"{name}, {order} order, {threads} threads, times as fast as one",
                        times[ours(order, threads)].against(times[ours(order)]),
                        "x",
                        least=least if threads == 2 else None,
                    )
                    for order in ORDERS
                ]
            figures.append(
                Figure(
                    f"reading both models, {threads} threads, times as fast as one",
                    encode[blocks(threads)].against(encode[blocks(1)]),
                    "x",
                )
            )
        exponent = ours("exponent")
        dense, sparse = case.near(0.01), case.near(0.002)
        for name, times, targets in (("encode", encode, (1.0, 1.5)), ("decode", decode, (1.5, 2.2))):
            value = case.nbytes / min(times[exponent].cpu) / 1e9
            target = targets[0] if dense else targets[1] if sparse else None
            figures.append(Figure(f"{name} in exponent order, a second of one processor", value, "GB", least=target))
        return figures


def _peer_encoder(peer: peers.Peer, base: peers.State, new: peers.State) -> Contestant:
    return Contestant(peer.name, lambda: peer.encode(base, new))


def _find(base: peers.State, new: peers.State) -> None:
    """The bare comparison: which words changed, as numpy says it."""
    for name, words in new.items():
        np.flatnonzero(base[name] != words)


def _compare(base: peers.State, new: peers.State, mask: NDArray[np.bool_]) -> None:
    """One flag a word, and nothing done with it."""
    for name, words in new.items():
        np.not_equal(base[name], words, out=mask[: len(words)])


def _compare_blocks(base: peers.State, new: peers.State, threads: int) -> None:
    """The least that reading both models takes: no mask of the model's size is written.

    With more threads than one it says what the machine's memory gives to them.
    """
    stretches: list[tuple[Words, Words]] = []
    for name, words in new.items():
        whole = words.nbytes & ~7
        old_lanes = base[name].view(np.uint8)[:whole].view(np.uint64)
        new_lanes = words.view(np.uint8)[:whole].view(np.uint64)
        stretches += [
            (old_lanes[start : start + _STRETCH], new_lanes[start : start + _STRETCH])
            for start in range(0, len(new_lanes), _STRETCH)
        ]

    def compare(share: Sequence[tuple[Words, Words]]) -> None:
        mask = np.empty(_BLOCK, np.bool_)
        for old, new in share:
            for start in range(0, len(new), _BLOCK):
                part = new[start : start + _BLOCK]
                np.not_equal(old[start : start + _BLOCK], part, out=mask[: len(part)])

    if threads == 1:
        compare(stretches)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(compare, [stretches[number::threads] for number in range(threads)]))


@contextmanager
def store_folder() -> Iterator[tuple[Path, str]]:
    """A folder for the objects that are decoded: in memory where that has room, so that no disk is timed."""
    in_memory = _SHM.is_dir() and os.access(_SHM, os.W_OK) and shutil.disk_usage(_SHM).free >= _SHM_ROOM
    with tempfile.TemporaryDirectory(prefix="tensordelta-", dir=_SHM if in_memory else None) as folder:
        yield Path(folder), "a folder in memory" if in_memory else "a temporary folder"
