"""The small documents of a chain: chain.json, latest.json and pins (SPEC.md sections 4.5, 4.11 and 13)."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ..errors import LimitError
from . import strict_json
from .names import (
    CHAIN,
    LATEST,
    ChainId,
    FormatVersion,
    Integer,
    ShortcutName,
    ShortcutStem,
    Time,
    Version,
    check_annotations,
    shortcut_of_stem,
)

#: Shortcuts that a hint may name.
MAX_HINTED = 64
#: Greatest size of chain.json, latest.json, pins and signatures, in bytes.
MAX_SMALL = 64 * 2**10


#: The grace period of a chain that names none, a day; and the shortest and longest ones, in seconds.
GRACE, MIN_GRACE, MAX_GRACE = 86_400, 60, 2**32


class ChainDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """chain.json: names the chain, and says how long its readers and writers may take; written once (section 4.5)."""

    tensordelta: FormatVersion
    chain: ChainId
    created: Time
    grace: Annotated[int, Meta(ge=MIN_GRACE, le=MAX_GRACE)] = GRACE
    annotations: dict[str, str] = {}


class LatestDocument(msgspec.Struct, frozen=True, omit_defaults=True):
    """latest.json: a hint of the newest version, and of shortcuts (SPEC.md section 4.11)."""

    tensordelta: FormatVersion
    chain: ChainId
    version: Version
    shortcuts: list[ShortcutStem] = []

    @property
    def names(self) -> list[ShortcutName]:
        """The shortcuts that it names."""
        return [shortcut_of_stem(stem) for stem in self.shortcuts]


class PinDocument(msgspec.Struct, frozen=True):
    """A pin: asks collectors to keep a version (SPEC.md section 13).

    It expires `seconds` after it was written; without them it does not expire.
    """

    tensordelta: FormatVersion
    chain: ChainId
    version: Version
    seconds: Integer | UnsetType = UNSET


def parse_chain(data: bytes) -> ChainDocument:
    """Parse chain.json.

    Raises:
        MalformedError, UnsupportedError, LimitError: see SPEC.md section 4.5.
    """
    document = strict_json.parse_document(data, ChainDocument, object=CHAIN, limit=MAX_SMALL, rule="TD-OBJ-015")
    check_annotations(document.annotations, object=CHAIN)
    return document


def parse_latest(data: bytes) -> LatestDocument:
    """Parse latest.json; callers treat any error as an absent hint.

    Raises:
        MalformedError, UnsupportedError, LimitError: see SPEC.md section 4.11.
    """
    latest = strict_json.parse_document(data, LatestDocument, object=LATEST, limit=MAX_SMALL, rule="TD-OBJ-018")
    if len(latest.shortcuts) > MAX_HINTED:
        raise LimitError(f"{len(latest.shortcuts)} shortcuts, more than {MAX_HINTED}", object=LATEST, rule="TD-LIM-004")
    return latest


def parse_pin(data: bytes, *, object: str) -> PinDocument:
    """Parse a pin.

    Raises:
        MalformedError, UnsupportedError, LimitError: see SPEC.md section 13.
    """
    return strict_json.parse_document(data, PinDocument, object=object, limit=MAX_SMALL, rule="TD-RET-018")
