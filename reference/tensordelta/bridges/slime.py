"""slime's weight deltas on disk, which miles, SGLang's `/pull_weights` and stitch share (SPEC.md appendix C.3).

A version is a folder `weight_v000007`. Version 0 is the engine's own model, which slime does not write: an import names
it, and an export writes it as `weight_v000000`, from which an engine can start.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ..errors import ConflictError, MissingError, WrongBaseError
from ..state.state import State
from ..stores import Store
from . import byte_deltas, weight_index
from .format import Found, Marker, Offer, Source, Target
from .objects import malformed
from .weight_index import INDEX, Delta, Full, Indexed

_RULE = "appendix C.3"
_CHECKSUMS = ("xxh3-128", "blake3", "adler32")
_FOLDER = re.compile(r"weight_v([0-9]{6,})/([^/]+)")


def _folder(id: str) -> str:
    return f"weight_v{id}/"


class Slime:
    """The format of slime and its kin; see `Format`.

    Args:
        encoding: of deltas that are written: "xor" or "overwrite".
        checksum: of deltas that are written: "xxh3-128", "blake3" or "adler32".
        full_every: a version of a number that this divides is written as a full one; None for none but the first.
    """

    name = "slime"
    appendix = _RULE
    unproven = (
        "dtypes and shapes, which are the base's",
        "tensors that a delta does not name, so the base as a whole",
        "the words of full versions",
        "which run a folder belongs to",
    )

    def __init__(
        self, *, encoding: str = byte_deltas.XOR, checksum: str = "xxh3-128", full_every: int | None = None
    ) -> None:
        if encoding not in byte_deltas.ENCODINGS or checksum not in _CHECKSUMS:
            raise ValueError(f"slime has the encodings xor and overwrite, and the checksums {', '.join(_CHECKSUMS)}")
        self._encoding, self._checksum, self._full_every = encoding, checksum, full_every

    def find(self, store: Store, after: str | None, begin: str | None) -> Found:
        files: dict[str, set[str]] = {}
        for name in store.names(""):
            match = _FOLDER.fullmatch(name)
            if match:
                files.setdefault(match[1], set()).add(match[2])
        ids = sorted(files, key=int)
        if len({int(id) for id in ids}) != len(ids):
            raise malformed("has two folders for one version", object=store.address, rule=_RULE)
        if after is not None and ids and int(ids[-1]) < int(after):
            raise ConflictError(
                f"ends with version {ids[-1]}, and {after} was imported: another run has taken the folder",
                object=store.address,
                rule=_RULE,
                advice="Import that run into a chain of its own.",
            )
        offers: list[Offer] = []
        for id in ids:
            if after is not None and int(id) <= int(after):
                continue
            if INDEX not in files[id]:
                fault = self._uncommitted(store, id)
                if id != ids[-1]:
                    raise fault
                return Found(offers, fault)
            offer = self._open(store, id, files[id])
            if after is None and (offer.base is not None or id != (begin or id)):
                continue  # what the first full version does not need
            if offer.base is not None and int(offer.base) != int(after or 0):
                raise WrongBaseError(
                    f"is a delta to version {offer.base}, and the version before it is {after}",
                    object=_folder(id) + INDEX,
                    rule=_RULE,
                    advice="A version between them is gone: begin at a later full one in a chain of its own.",
                )
            offers.append(offer)
            after = id
        if after is None and ids:
            raise _no_base(store, ids[0])
        return Found(offers)

    def _uncommitted(self, store: Store, id: str) -> MissingError:
        try:
            self._open(store, id, ())
        except MissingError as fault:
            return fault
        raise AssertionError  # pragma: no cover  it was committed since the listing

    def offer(self, source: Source, id: str) -> Indexed:
        return self._open(source, id, ())

    def _open(self, source: Source, id: str, present: Iterable[str]) -> Indexed:
        index = weight_index.read_index(
            source, _folder(id), rule=_RULE, encodings=byte_deltas.ENCODINGS, checksums=_CHECKSUMS
        )
        said = index.metadata.get("version")
        if said != id and (index.is_delta or said is not None):
            raise malformed(f"says that it is version {said!r}", object=index.name, rule=_RULE)
        if not index.is_delta:
            return Indexed(id, int(id), None, Full(source, index, present))
        base = index.metadata["base_version"]
        if not re.fullmatch("[0-9]{6,}", base) or int(base) >= int(id):
            raise malformed(f"has the base {base!r}", object=index.name, rule=_RULE)
        return Indexed(id, int(id), base, Delta(source, index, present))

    def first_base(self) -> str:
        return f"{0:06d}"

    # -- writing --------------------------------------------------------------------------------------------------

    def name_after(self, id: str | None, version: int, imported: str | None) -> str:
        if id is not None:  # receivers count on
            return f"{int(id) + 1:06d}"
        return self.first_base() if imported is None else imported

    def marker_names(self, id: str) -> tuple[str]:
        return (_folder(id) + INDEX,)

    def folder(self, id: str) -> str:
        return _folder(id)

    def wants_full(self, id: str, held: State, state: State) -> bool:
        return held.layout != state.layout or (self._full_every is not None and int(id) % self._full_every == 0)

    def full(self, target: Target, id: str, state: State, files: Mapping[str, bytes]) -> Marker:
        return weight_index.write_full(target, _folder(id), state, files, version=id, algorithm=None)

    def delta(self, target: Target, id: str, base: str, held: State, state: State, changed: Iterable[str]) -> Marker:
        return weight_index.write_delta(
            target,
            _folder(id),
            held,
            state,
            changed,
            version=id,
            base=base,
            encoding=self._encoding,
            algorithm=self._checksum,
            rule=_RULE,
        )


def _no_base(store: Store, first: str) -> MissingError:
    return MissingError(
        f"begins with version {first}, a delta, and has no full version before it",
        object=store.address,
        rule=_RULE,
        advice="Name the model that the engines began with by --base; it is version 000000.",
    )
