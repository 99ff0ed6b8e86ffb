"""Damage to JSON: one value, member or item of a document is changed, at a place taken by chance."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from random import Random
from typing import Any


class Members(list[tuple[str, Any]]):
    """A JSON object that keeps the order of its members, and may have two of one name."""


class Raw(str):
    """A JSON text that is written as it is."""


#: A container and the key of a value in it: a position, also in `Members`.
Place = tuple[list[Any], int]


def parse(text: bytes) -> Any:
    """A document as lists, `Members` and scalars; numbers that are no integers stay text."""
    return json.loads(text, object_pairs_hook=Members, parse_float=Raw)


def render(value: Any) -> str:
    """The text of a document."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, Members):
        return "{" + ",".join(f"{json.dumps(name, ensure_ascii=False)}:{render(each)}" for name, each in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(render, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def dump(value: Any) -> bytes:
    """The bytes of a document; a lone surrogate in it becomes bytes that are not UTF-8."""
    return render(value).encode("utf-8", "surrogatepass")


def get(place: Place) -> Any:
    """The value at a place."""
    container, key = place
    return container[key][1] if isinstance(container, Members) else container[key]


def put(place: Place, value: Any) -> None:
    """Change the value at a place."""
    container, key = place
    container[key] = (container[key][0], value) if isinstance(container, Members) else value


def places(value: Any) -> Iterator[Place]:
    """Every place of a document below its top."""
    if isinstance(value, list):
        for key in range(len(value)):
            yield value, key
            yield from places(get((value, key)))


def containers(value: Any) -> Iterator[list[Any]]:
    """Every object and array of a document, the top one first."""
    if isinstance(value, list):
        yield value
        for key in range(len(value)):
            yield from containers(get((value, key)))


_NUMBERS: list[Any] = [0, 1, 2, 7, 16, 127, 255, 256, -1, 10**12 - 1, 10**12, (1 << 27) + 1, (1 << 40) + 1, 10**400]
_NUMBERS += [1 << bits for bits in (15, 16, 20, 31, 32, 40, 48, 53, 63, 64)] + [(1 << 53) - 1, (1 << 63) - 1]
_NUMBERS += map(Raw, "-0 1.0 1e3 1e400 01 NaN -Infinity".split())
_TYPES: list[Any] = [None, True, False, "", "0", [], Members(), Raw("[" * 40 + "]" * 40), Raw("[" * 5000), Raw("")]
_TEXTS = ["", "\0", "../x", "/etc/passwd", "a" * 5000, "é", "\ud800", "{}", "\\", " ", "1.0", "2.0", "1.1", "00"]


def _number(value: int, rng: Random) -> Any:
    near = [value + 1, value - 1, value + 1, value - 1, value * 2, -value, value + 256, str(value), Raw(f"{value}.0")]
    return rng.choice([*near, *rng.sample(_NUMBERS, 6)])


def _string(value: str, rng: Random) -> Any:
    if value and rng.random() < 0.6:
        at = rng.randrange(len(value))
        if re.fullmatch("[0-9a-f-]+", value):
            other = rng.choice("0123456789abcdef")
        else:
            other = chr(rng.choice([ord(value[at]) ^ 1, ord(value[at]) ^ 32, rng.randrange(32, 127)]))
        return value[:at] + other + value[at + 1 :]
    return rng.choice([value[:-1], value[1:], value + "0", value.upper(), value * 2, *_TEXTS])


def change_value(document: Any, rng: Random) -> str:
    """Change one scalar: a number by one or to a bound, a character, or the type."""
    scalars = [place for place in places(document) if not isinstance(get(place), list)]
    if not scalars:
        return retype(document, rng)
    place = rng.choice(scalars)
    before = get(place)
    if rng.random() < 0.15:
        after = rng.choice(_TYPES)
    elif isinstance(before, int) and not isinstance(before, bool):
        after = _number(before, rng)
    elif isinstance(before, str):
        after = _string(before, rng)
    else:
        after = rng.choice([*_TYPES, 1, "x"])
    put(place, after)
    return f"{_name(place)} {_short(before)} to {_short(after)}"


def retype(document: Any, rng: Random) -> str:
    """Put a value of another type in the place of any value."""
    found = [*places(document)]
    if not found:
        document.append(("x", 1) if isinstance(document, Members) else 1)
        return "something in what was empty"
    place = rng.choice(found)
    after = rng.choice(_TYPES)
    put(place, after)
    return f"{_name(place)} to {_short(after)}"


def change_shape(document: Any, rng: Random) -> str:
    """Drop, repeat, exchange or move members of an object or items of an array."""
    filled = [each for each in containers(document) if each]
    if not filled:
        return retype(document, rng)
    container = rng.choice(filled)
    at, other = rng.randrange(len(container)), rng.randrange(len(container))
    what = rng.choice(["drop", "repeat", "exchange", "reverse", "empty"])
    if what == "drop":
        del container[at]
    elif what == "repeat":
        container.insert(other, container[at])
    elif what == "exchange":
        first, second = get((container, at)), get((container, other))
        put((container, at), second)
        put((container, other), first)
    elif what == "reverse":
        container.reverse()
    else:
        container.clear()
    return f"{what} in {type(container).__name__} of {len(container)}"


def change_members(document: Any, rng: Random) -> str:
    """Repeat a member with the same or another value, rename one, add one, or put them in another order."""
    found = [each for each in containers(document) if isinstance(each, Members) and each]
    if not found:
        return retype(document, rng)
    members = rng.choice(found)
    name, value = rng.choice(members)
    what = rng.choice(["duplicate", "duplicate, changed", "rename", "add", "reorder"])
    if what == "duplicate":
        members.append((name, value))
    elif what == "duplicate, changed":
        members.insert(0, (name, rng.choice([0, "", None, value])))
    elif what == "rename":
        members[members.index((name, value))] = (name + rng.choice(["", "x", "\0", " "]), value)
    elif what == "add":
        members.append((rng.choice(["colour", "codec", "base", "sources", "name"]), rng.choice([1, "x", None, []])))
    else:
        rng.shuffle(members)
    return f"{what} {name}"


def _name(place: Place) -> str:
    container, key = place
    return str(container[key][0]) if isinstance(container, Members) else f"[{key}]"


def _short(value: Any) -> str:
    text = render(value) if isinstance(value, list) else repr(value)
    return text if len(text) < 40 else f"{text[:36]}…"


Edit = Callable[[Any, Random], str]
EDITS: dict[str, Edit] = {
    "a value": change_value,
    "a type": retype,
    "items": change_shape,
    "members": change_members,
}


def edited(data: bytes, edit: Edit, rng: Random) -> tuple[bytes, str]:
    """The bytes of a document after an edit, and what that was; a document that cannot be parsed stays as it is."""
    try:
        document = parse(data)
    except (ValueError, RecursionError):
        return data, "no JSON"
    what = edit(document, rng)
    return dump(document), what
