"""How an invalid case differs from its valid twin, as a person reads it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from . import wording
from .case import Case

MOST = 12
"""So many differences are told; of more the first ones."""
_LONGEST = 160
_BESIDE = 32
"""Characters around a difference of texts, and four times the bytes around one of bytes."""
_ABSENT = "absent"
_NOTHING: Any = object()
"""In place of a JSON value that is not there."""
_TABLE = "__metadata__.tensordelta"
_FOLDERS = ("packs", "layouts", "fingerprints", "files", "signatures", "manifests", "shortcuts")


@dataclass(frozen=True)
class Difference:
    """One difference: where, and what is there in the valid twin and in the case."""

    where: str
    twin: str
    case: str


def differences(case: Case, twin: Case) -> list[Difference]:
    """The differences of files and requests, causes before consequences.

    Of more than `MOST` the last one counts the rest. Left out: what is expected, and the names, digests and sizes that
    follow from other bytes of an object.
    """
    found = [*_files(case, twin), *_requests(case, twin)]
    if len(found) > MOST:
        rest = len(found) - MOST + 1
        found = [*found[: MOST - 1], Difference(f"and {rest} more", "", "")]
    return [Difference(shortened(each.where), shortened(each.twin), shortened(each.case)) for each in found]


def shortened(text: str) -> str:
    """A text with its digests cut short, and with its middle left out where it is long."""
    text = wording.plain(wording.short_digests(text).replace(_TABLE, "chunk table"))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"


# -- requests ----------------------------------------------------------------------------------------------------------


def _requests(case: Case, twin: Case) -> Iterator[Difference]:
    if not case.steps or not twin.steps:
        return
    own, other = (json.loads(each.files["case.json"])["steps"] for each in (case, twin))
    for number in range(max(len(own), len(other))):
        if number < len(own) and number < len(other):
            sides = [{key: value for key, value in steps[number].items() if key != "expect"} for steps in (other, own)]
            yield from _values("the request" if len(own) == len(other) == 1 else f"step {number + 1}", *sides)
        else:
            told = [wording.step(each.steps[number]) if number < len(each.steps) else _ABSENT for each in (twin, case)]
            yield Difference(f"step {number + 1}", *told)


# -- files -------------------------------------------------------------------------------------------------------------


def _files(case: Case, twin: Case) -> Iterator[Difference]:
    pairs = _pairs(case, twin)
    renamed = _consequences(pairs, case, twin)
    for theirs, mine in sorted(pairs, key=_causes_first):
        if mine is None or theirs is None:
            told = _size((twin if mine is None else case).files[theirs or mine or ""])
            yield Difference(
                _named(theirs or mine or ""), _ABSENT if theirs is None else told, _ABSENT if mine is None else told
            )
            continue
        if twin.files[theirs] == case.files[mine]:
            yield Difference("the name of an object", _named(theirs), _named(mine))
            continue
        for each in _contents(twin.files[theirs], case.files[mine]):
            if (each.twin, each.case) not in renamed:
                where = f"{_named(mine)}: {each.where}" if each.where else _named(mine)
                yield Difference(where, each.twin, each.case)


def _named(name: str) -> str:
    return name.removeprefix("chain/")


def _causes_first(pair: tuple[str | None, str | None]) -> tuple[int, str]:
    name = pair[1] or pair[0] or ""
    folder = name.removeprefix("chain/").split("/")[0]
    return (_FOLDERS.index(folder) if folder in _FOLDERS else len(_FOLDERS), name)


def _pairs(case: Case, twin: Case) -> list[tuple[str | None, str | None]]:
    """The files that differ, of the twin and of the case; one that stands alone in its folder on either side is paired
    with the one that has taken its place, under another digest."""
    own, other = case.files, twin.files
    unasked = _answers(case) | _answers(twin)
    if not case.steps or not twin.steps:
        unasked |= {name for name in {*own, *other} if not name.startswith("chain/")}
    pairs: list[tuple[str | None, str | None]] = []
    alone: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for name in sorted(own.keys() | other.keys()):
        if name == "case.json" or name in unasked:
            continue
        if name in own and name in other:
            if own[name] != other[name]:
                pairs.append((name, name))
        else:
            alone[name.rpartition("/")[0]][name in own].append(name)
    for theirs, mine in alone.values():
        if len(theirs) == len(mine) == 1:
            pairs.append((theirs[0], mine[0]))
        else:
            pairs += [(name, None) for name in theirs] + [(None, name) for name in mine]
    return pairs


def _answers(case: Case) -> set[str]:
    """The states of a case that say only what has to come."""
    requests = [request for step in case.steps for request in (step.input, *step.race)]
    given = json.dumps([dict(request) for request in requests])
    expected = {expect.state for step in case.steps for expect in step.expect.each()}
    return {state for state in expected if isinstance(state, str) and json.dumps(state) not in given}


def _consequences(pairs: list[tuple[str | None, str | None]], case: Case, twin: Case) -> set[tuple[str, str]]:
    """The differences in other objects that follow from other bytes of a paired one: its name, its digest, its size."""
    found = set()
    for theirs, mine in pairs:
        if theirs is None or mine is None or theirs == mine or twin.files[theirs] == case.files[mine]:
            continue
        found.add(tuple(json.dumps(name.removeprefix("chain/")) for name in (theirs, mine)))
        digests = [wording.DIGEST.search(name) for name in (theirs, mine)]
        if digests[0] and digests[1]:
            found.add((json.dumps(digests[0][1]), json.dumps(digests[1][1])))
        found.add((str(len(twin.files[theirs])), str(len(case.files[mine]))))
    return {(theirs, mine) for theirs, mine in found}


# -- contents ----------------------------------------------------------------------------------------------------------


def _contents(theirs: bytes, mine: bytes) -> Iterator[Difference]:
    tensors = _safetensors(theirs), _safetensors(mine)
    if tensors[0] is not None and tensors[1] is not None:
        told = list(_safetensors_differences(tensors[0], tensors[1]))
        if told:
            yield from told
            return
    documents = _json(theirs), _json(mine)
    if documents[0] is not None and documents[1] is not None and not _alike(documents[0], documents[1]):
        told = list(_values("", documents[0][0], documents[1][0]))
        if told:
            yield from told
            return
    texts = _text(theirs), _text(mine)
    if texts[0] is not None and texts[1] is not None:
        yield _text_difference(texts[0], texts[1])
        return
    yield from _byte_differences("", theirs, mine)


_Opened = tuple[Mapping[str, Any], bytes]


def _safetensors(data: bytes) -> _Opened | None:
    """The header of a safetensors file, the chunk table in it as JSON, and the bytes after it."""
    size = int.from_bytes(data[:8], "little")
    document = _json(data[8 : 8 + size]) if 0 < size <= len(data) - 8 else None
    if document is None or not isinstance(document[0], dict):
        return None
    header = dict(document[0])
    metadata = header.get("__metadata__")
    if isinstance(metadata, dict) and isinstance(metadata.get("tensordelta"), str):
        table = _json(metadata["tensordelta"].encode("utf-8", "surrogatepass"))
        if table is not None:
            header["__metadata__"] = {**metadata, "tensordelta": table[0]}
    return header, data[8 + size :]


def _safetensors_differences(theirs: _Opened, mine: _Opened) -> Iterator[Difference]:
    parts = [{name: _part(entry, data) for name, entry in header.items()} for header, data in (theirs, mine)]
    both = [(name, parts[0][name], parts[1][name]) for name in sorted(parts[0].keys() & parts[1].keys())]
    streams = [(name, one, other) for name, one, other in both if one is not None and other is not None]
    headers = [theirs[0], mine[0]]
    if theirs[0].keys() != mine[0].keys() or any(len(one) != len(other) for _, one, other in streams):
        headers = [_without_places(header, each) for header, each in zip(headers, parts, strict=True)]
    yield from _values("", *headers)
    for name, one, other in streams:
        yield from _byte_differences(f"bytes of {name}", one, other)
    if not streams:
        yield from _byte_differences("data", theirs[1], mine[1])


def _without_places(header: Mapping[str, Any], parts: Mapping[str, bytes | None]) -> dict[str, Any]:
    """A header without where everything lies, which follows from how long the parts are."""
    return {
        name: entry if parts[name] is None else {key: value for key, value in entry.items() if key != "data_offsets"}
        for name, entry in header.items()
    }


def _part(entry: object, data: bytes) -> bytes | None:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(offset) is int for offset in offsets):
        return None
    begin, end = offsets
    return data[begin:end] if 0 <= begin <= end <= len(data) else None


def _json(data: bytes) -> tuple[Any] | None:
    """The value of a JSON text, in a tuple; None where it is none, or has a member twice."""
    try:
        return (json.loads(data.decode("utf-8"), object_pairs_hook=_unique),)
    except (UnicodeDecodeError, ValueError, RecursionError):
        return None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a member is there twice")
    return members


def _text(data: bytes) -> str | None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() or "\n" in text else None


def _values(where: str, theirs: Any, mine: Any) -> Iterator[Difference]:
    """The places at which two JSON values differ."""
    if isinstance(theirs, dict) and isinstance(mine, dict):
        for key in [*theirs, *(key for key in mine if key not in theirs)]:
            place = f"{where}.{key}" if where else str(key)
            yield from _values(place, theirs.get(key, _NOTHING), mine.get(key, _NOTHING))
        return
    if isinstance(theirs, list) and isinstance(mine, list):
        yield from _items(where, theirs, mine)
        return
    if isinstance(theirs, str) and isinstance(mine, str) and min(len(theirs), len(mine)) > _LONGEST and theirs != mine:
        told = _text_difference(theirs, mine)
        yield Difference(f"{where}, {told.where}", told.twin, told.case)
        return
    if type(theirs) is not type(mine) or theirs != mine:
        yield Difference(where, _dumped(theirs), _dumped(mine))


def _items(where: str, theirs: list[Any], mine: list[Any]) -> Iterator[Difference]:
    """The places at which two lists differ: item by item, or the items that only one of them has."""
    first = 0
    last = 0
    if len(theirs) != len(mine):
        shortest = min(len(theirs), len(mine))
        while first < shortest and _alike(theirs[first], mine[first]):
            first += 1
        while last < shortest - first and _alike(theirs[-1 - last], mine[-1 - last]):
            last += 1
    one, other = theirs[first : len(theirs) - last], mine[first : len(mine) - last]
    for index in range(max(len(one), len(other))):
        pair = [items[index] if index < len(items) else _NOTHING for items in (one, other)]
        yield from _values(f"{where}[{first + index}]", *pair)


def _alike(one: Any, other: Any) -> bool:
    return json.dumps(one) == json.dumps(other)


def _dumped(value: Any) -> str:
    return _ABSENT if value is _NOTHING else json.dumps(value, ensure_ascii=False)


def _text_difference(theirs: str, mine: str) -> Difference:
    start = _same(theirs, mine)
    shortest = min(len(theirs), len(mine)) - start
    end = min(shortest, _same(theirs[::-1], mine[::-1]))
    first = max(0, start - _BESIDE)

    def around(text: str) -> str:
        last = min(len(text), len(text) - end + _BESIDE)
        return f"{'…' if first else ''}{text[first:last]}{'…' if last < len(text) else ''}"

    return Difference(f"at character {start}", around(theirs), around(mine))


def _same(one: str | bytes, other: str | bytes) -> int:
    """How many characters are the same at the beginning."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def _byte_differences(where: str, theirs: bytes, mine: bytes) -> Iterator[Difference]:
    if theirs == mine:
        return
    if len(theirs) != len(mine):
        yield Difference(f"{where}: length" if where else "length", _size(theirs), _size(mine))
    start = _same(theirs, mine)
    if start == min(len(theirs), len(mine)):
        return
    count = sum(a != b for a, b in zip(theirs, mine, strict=False))
    more = "" if len(theirs) != len(mine) or count == 1 else f", the first of {count} that differ"
    yield Difference(f"{where + ': ' if where else ''}byte {start}{more}", _hex(theirs, start), _hex(mine, start))


def _hex(data: bytes, start: int) -> str:
    stop = start + _BESIDE // 4
    return f"{data[start:stop].hex(' ')}{' …' if stop < len(data) else ''}"


def _size(data: bytes) -> str:
    return f"{len(data)} byte{'' if len(data) == 1 else 's'}"
