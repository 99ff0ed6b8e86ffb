"""What a case costs to send: published to a real chain, whose objects give the sizes.

The chain is kept: `speed` decodes its objects.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import peers
from cases import Case, arrays
from timing import Figure

import tensordelta as td
from tensordelta.tables import Table, bytes_text, percent_text
from tensordelta.write.encoder import Order

ORDERS: tuple[Order, ...] = ("natural", "exponent")


@dataclass(frozen=True)
class Sizes:
    """What a case costs to send.

    Attributes:
        full: the full version.
        deltas: the deltas of all steps, by order.
        packs: bytes of their packs alone, by order.
        elsewhere: bytes of all steps, by the encoding's name.
        changed: words changed by all steps.
    """

    full: td.Published
    deltas: Mapping[Order, Sequence[td.Published]]
    packs: Mapping[Order, int]
    elsewhere: Mapping[str, int]
    changed: int

    def rows(self) -> list[tuple[str, int]]:
        """Encodings, and the bytes of all steps."""
        ours = [
            (f"tensordelta, {order} order", sum(each.size for each in deltas)) for order, deltas in self.deltas.items()
        ]
        return ours + list(self.elsewhere.items())

    def bits(self, size: int) -> float:
        """Bits for each changed word."""
        return 8 * size / self.changed if self.changed else 0.0

    def figure(self, most: float) -> Figure:
        """What exponent order takes, beside a target."""
        size = sum(each.size for each in self.deltas["exponent"])
        return Figure("exponent order, everything that is put counted", self.bits(size), "bits/change", most=most)

    def facts(self, nbytes: int) -> dict[str, object]:
        """What the JSON holds."""
        steps = len(self.deltas["natural"])
        return {
            "full": {"bytes": self.full.size, "share_of_model": self.full.size / nbytes},
            "steps": steps,
            "encodings": [
                {
                    "name": name,
                    "bytes": size,
                    "bits_per_changed_word": self.bits(size),
                    "share_of_model": size / steps / nbytes,
                }
                for name, size in self.rows()
            ],
            "packs_alone": {order: {"bytes": size, "bits": self.bits(size)} for order, size in self.packs.items()},
        }

    def table(self, nbytes: int) -> Table:
        steps = len(self.deltas["natural"])
        rows = [
            [name, f"{self.bits(size):.2f}", bytes_text(size / steps), percent_text(size / steps / nbytes)]
            for name, size in self.rows()
        ]
        rows.append(
            ["tensordelta, full version", "", bytes_text(self.full.size), percent_text(self.full.size / nbytes)]
        )
        return Table(
            "SIZES, everything that is put counted (packs, manifest, fingerprints; the others: payload alone)",
            ["<", "bits/change", "bytes/step", "of the model"],
            rows,
        )


@dataclass(frozen=True)
class Step:
    """The first step of a case as it lies in the chain: from one version to another."""

    base: int
    version: int


def publish(case: Case, folder: Path, threads: int) -> tuple[Sizes, dict[Order, Step]]:
    """Publish a case to a chain in `folder`: all states in natural order, then from the first again in exponent order.

    Returns:
        The sizes, and where the first step lies in the chain by order.
    """
    states = case.states
    with _environment("TENSORDELTA_CACHE", str(folder / "cache")):
        chain = td.open(folder / "chain", create=True, threads=threads)
        full = chain.publish(states[0])
        deltas: dict[Order, list[td.Published]] = {"natural": [chain.publish(state) for state in states[1:]]}
        again = chain.publish(states[0])
        deltas["exponent"] = [chain.publish(state, order="exponent") for state in states[1:]]
    packs = {order: sum(chain.manifest(each.version).size for each in published) for order, published in deltas.items()}
    others = {peer.name: 0 for peer in peers.peers()}
    for peer in peers.peers():
        for old, new in pairwise(states):
            others[peer.name] += peer.size(peer.encode(arrays(old), arrays(new)))
    changed = sum(each.changed for each in deltas["natural"])
    bases: dict[Order, int] = {"natural": full.version, "exponent": again.version}
    steps = {order: Step(bases[order], deltas[order][0].version) for order in ORDERS}
    return Sizes(full, deltas, packs, others, changed), steps


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def copy_steps(source: Path, target: Path, steps: Mapping[Order, Step]) -> None:
    """Copy a chain, of the packs only those of these steps."""
    chain = td.open(source)
    kept = {pack.path for step in steps.values() for pack in chain.manifest(step.version).packs}
    for path in source.rglob("*"):
        name = path.relative_to(source).as_posix()
        if path.is_file() and (not name.startswith("packs/") or name in kept):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target / name)
