"""ModelExpress's full checkpoints and weight deltas in object storage (SPEC.md appendix C.4).

A version is a folder with an index; its name is opaque, and bases alone order the versions. The index of a full version
does not name it: its folder does.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

from ..errors import ConflictError, MissingError, UnsupportedError, WrongBaseError
from ..format.names import is_path
from ..state.state import State
from ..stores import Store
from . import byte_deltas, weight_index
from .format import Found, Marker, Offer, Source, Target
from .objects import malformed
from .weight_index import INDEX, Delta, Full, Indexed

_RULE = "appendix C.4"
_CHECKSUMS = ("adler32",)
_NUMBERED = re.compile(r"(.*?)([0-9]{1,18})")


def _number(id: str) -> tuple[str, int]:
    """A name's text, and the number at its end; the whole text and -1 where there is none."""
    match = _NUMBERED.fullmatch(id)
    return (match[1], int(match[2])) if match else (id, -1)


def _is_later(id: str, other: str) -> bool:
    """True where two names are one text and a number, and the first has the greater one."""
    (text, number), (other_text, other_number) = _number(id), _number(other)
    return text == other_text and number > other_number >= 0


class ModelExpress:
    """The format of ModelExpress; see `Format`."""

    name = "modelexpress"
    appendix = _RULE
    unproven = (
        "dtypes and shapes, which are the base's",
        "tensors that a delta does not name, so the base as a whole",
        "more than 32 bits of checksum a tensor (Adler-32)",
        "the order of versions but by their bases, and, of full ones, by the numbers at the end of their names",
    )

    def __init__(self) -> None:
        self._opened: dict[str, Indexed] = {}  # by folder: objects never change, and each look asks for all of them

    def find(self, store: Store, after: str | None, begin: str | None) -> Found:
        files: dict[str, set[str]] = {}
        for name in store.names(""):
            folder, _, file = name.partition("/")
            if file and "/" not in file:
                files.setdefault(folder, set()).add(file)
        by_id: dict[str, Indexed] = {}
        leads: dict[str, str] = {}
        for folder, held in sorted(files.items()):
            if INDEX not in held:
                continue
            if folder not in self._opened:
                self._opened[folder] = self._open(store, folder, held)
            each = self._opened[folder]
            if each.id in by_id:
                raise malformed(f"has two folders for version {each.id!r}", object=store.address, rule=_RULE)
            by_id[each.id] = each
            if each.base is not None and leads.setdefault(each.base, each.id) != each.id:
                raise ConflictError(
                    f"has two deltas to version {each.base!r}: {leads[each.base]} and {each.id}",
                    object=store.address,
                    rule=_RULE,
                    advice="One of them belongs to a run that was abandoned: remove it.",
                )
        offers: list[Offer] = []
        while True:
            following = None if after is None else by_id.get(leads.get(after, ""))
            following = following or self._next_full(store, by_id.values(), after, begin)
            if following is None:
                break
            offers.append(following)
            after = following.id
        if after is None and by_id:
            raise MissingError(
                "has deltas, and no full version to begin with",
                object=store.address,
                rule=_RULE,
                advice="Name the checkpoint that they begin with by --base, and its version by --from.",
            )
        self._check_reached(by_id, after)
        return Found(offers, self._unfinished(files), self._notes(by_id, after, offers))

    def _next_full(
        self, store: Store, found: Iterable[Indexed], after: str | None, begin: str | None
    ) -> Indexed | None:
        """The full version that follows another, or the first one; None where there is none."""
        fulls = [each for each in found if each.base is None]
        if after is not None:
            fulls = [each for each in fulls if _is_later(each.id, after)]
        elif begin is not None:
            fulls = [each for each in fulls if each.id == begin]
        elif len(fulls) > 1 and len({_number(each.id)[0] for each in fulls}) > 1:
            raise ConflictError(
                f"has several full versions, whose order the format does not give: "
                f"{', '.join(sorted(each.id for each in fulls))}",
                object=store.address,
                rule=_RULE,
                advice="Name the one to begin with by --from.",
            )
        return min(fulls, key=lambda each: _number(each.id), default=None)

    def _check_reached(self, by_id: Mapping[str, Indexed], after: str | None) -> None:
        """Check that no delta is to a version that is gone, unless it is older than what was imported."""
        for each in by_id.values():
            gone = each.base is not None and each.base not in by_id and each.base != after
            if gone and not (after is not None and (each.id == after or _is_later(after, each.id))):
                raise WrongBaseError(
                    f"is a delta to version {each.base!r}, which is not there; the newest imported is {after!r}",
                    object=self._folder_name(each.id),
                    rule=_RULE,
                    advice="A version between them is gone: begin at a later full one, in a chain of its own.",
                )

    def _notes(self, by_id: Mapping[str, Indexed], after: str | None, offers: Iterable[Offer]) -> list[str]:
        taken = {offer.id for offer in offers}
        return [
            f"full version {each.id} is left out: its name does not say that it follows {after}"
            for each in by_id.values()
            if each.base is None and after is not None and each.id not in taken and each.id != after
            if not _is_later(after, each.id)
        ]

    def _unfinished(self, files: Mapping[str, Collection[str]]) -> MissingError | None:
        for folder, held in sorted(files.items()):
            if INDEX not in held and any(name.endswith(".safetensors") for name in held):
                return MissingError(
                    "has no index: the version is not committed",
                    object=folder,
                    rule=_RULE,
                    advice="Wait until its writer has ended; if it died, remove the folder.",
                )
        return None

    def offer(self, source: Source, id: str) -> Indexed:
        return self._open(source, self._folder_name(id), ())

    def _open(self, source: Source, folder: str, present: Iterable[str]) -> Indexed:
        index = weight_index.read_index(
            source, f"{folder}/", rule=_RULE, encodings=[byte_deltas.XOR], checksums=_CHECKSUMS
        )
        if not index.is_delta:
            return Indexed(folder, None, None, Full(source, index, present))
        id, base = index.metadata["version"], index.metadata["base_version"]
        if not id.strip() or not base.strip() or id == base:
            raise malformed(f"is version {id!r} with the base {base!r}", object=index.name, rule=_RULE)
        return Indexed(id, None, base, Delta(source, index, present))

    def first_base(self) -> None:
        return None

    # -- writing --------------------------------------------------------------------------------------------------

    def name_after(self, id: str | None, version: int, imported: str | None) -> str:
        return f"v{version}" if imported is None else imported

    def _folder_name(self, id: str) -> str:
        if "/" in id or not is_path(id):
            raise UnsupportedError(
                f"the version's name {id!r} cannot be that of a folder", object=id, rule=_RULE, advice="Choose another."
            )
        return id

    def marker_names(self, id: str) -> tuple[str]:
        return (f"{self._folder_name(id)}/{INDEX}",)

    def folder(self, id: str) -> str:
        return f"{self._folder_name(id)}/"

    def wants_full(self, id: str, held: State, state: State) -> bool:
        if held.layout != state.layout:
            raise UnsupportedError(
                "the tensors are others than those of the version before, which ModelExpress's receivers refuse",
                object="modelexpress",
                rule=_RULE,
                advice="Export into another place, beginning with this version (--from).",
            )
        return False

    def full(self, target: Target, id: str, state: State, files: Mapping[str, bytes]) -> Marker:
        return weight_index.write_full(target, self.folder(id), state, files, version=None, algorithm="adler32")

    def delta(self, target: Target, id: str, base: str, held: State, state: State, changed: Iterable[str]) -> Marker:
        return weight_index.write_delta(
            target,
            self.folder(id),
            held,
            state,
            changed,
            version=id,
            base=base,
            encoding=byte_deltas.XOR,
            algorithm="adler32",
            rule=_RULE,
        )
