"""The grammar of names, paths and other strings of the format (SPEC.md sections 4.1, 4.3 and 4.4).

A name is the place of an object under the chain's root.
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from typing import Annotated, NamedTuple

from msgspec import Meta

from ..errors import LimitError, MalformedError
from . import strict_json

#: Versions are at most twelve decimal digits.
MAX_VERSION = 10**12 - 1
#: Greatest length of a path, in characters.
MAX_PATH = 200

_TIME = (
    r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)"
    r"(\.[0-9]{1,9})?Z\Z"
)
Integer = Annotated[int, Meta(ge=0, le=strict_json.MAX_INTEGER)]
Version = Annotated[int, Meta(ge=0, le=MAX_VERSION)]
Sha256 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Fingerprint = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}\Z")]
ChainId = Annotated[str, Meta(pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")]
Time = Annotated[str, Meta(pattern=_TIME)]
FormatVersion = Annotated[str, Meta(pattern=r"^(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)(-[a-z0-9.]{1,16})?\Z")]

ShortcutStem = Annotated[str, Meta(pattern=r"^[0-9]{12}-([0-9]{12}|full)(\.[a-z0-9]{1,16})?\Z")]

CHAIN = "chain.json"
LATEST = "latest.json"
MANIFESTS = "manifests/"
SHORTCUTS = "shortcuts/"
PACKS = "packs/"
LAYOUTS = "layouts/"
FINGERPRINTS = "fingerprints/"
FILES = "files/"
PINS = "pins/"
#: Copies of manifests and shortcuts that were dropped, by their names.
RETIRED = "retired/"
SIGNATURES = "signatures/"
#: Folders under a chain's root.
FOLDERS = frozenset(
    {"layouts", "packs", "manifests", "shortcuts", "fingerprints", "files", "pins", "signatures", "retired"}
)

# Not the name of a device, alone or before a dot: Windows takes it for the device.
_SEGMENT = r"(?!(?i:con|prn|aux|nul|com[1-9]|lpt[1-9])(?:[./]|\Z))[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_-])?"
_PATH = re.compile(rf"{_SEGMENT}(/{_SEGMENT})*")
_MANIFEST = re.compile(r"manifests/([0-9]{12})\.json")
_PIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,63}")
_SIGNATURE = re.compile(r"signatures/([0-9a-f]{64})-[0-9a-f]{16}\.json")
_SHORTCUT = re.compile(r"shortcuts/([0-9]{12})-([0-9]{12}|full)(?:\.([a-z0-9]{1,16}))?\.json")


class ShortcutName(NamedTuple):
    """The parts of a shortcut's name: its edge, and a tag that distinguishes encodings of one edge."""

    version: int
    base: int | None
    tag: str | None


def manifest_name(version: int) -> str:
    """Name of the manifest that makes a version."""
    return f"{MANIFESTS}{version:012d}.json"


def parse_manifest_name(name: str) -> int | None:
    """The version in a manifest's name, or None for any other name."""
    match = _MANIFEST.fullmatch(name)
    return int(match[1]) if match else None


def shortcut_name(version: int, base: int | None, tag: str | None = None) -> str:
    """Name of a shortcut to `version` from `base`, or from nothing."""
    edge = f"{version:012d}-" + ("full" if base is None else f"{base:012d}")
    return f"{SHORTCUTS}{edge}{'' if tag is None else '.' + tag}.json"


def parse_shortcut_name(name: str) -> ShortcutName | None:
    """The parts of a shortcut's name, or None for any other name."""
    match = _SHORTCUT.fullmatch(name)
    if not match:
        return None
    return ShortcutName(int(match[1]), None if match[2] == "full" else int(match[2]), match[3])


def shortcut_stem(name: ShortcutName) -> str:
    """How the hint names a shortcut: without the folder and the suffix."""
    return shortcut_name(*name).removeprefix(SHORTCUTS).removesuffix(".json")


def shortcut_of_stem(stem: str) -> ShortcutName:
    """The shortcut that the hint names so."""
    name = parse_shortcut_name(f"{SHORTCUTS}{stem}.json")
    assert name is not None
    return name


def pin_name(name: str) -> str:
    """Name of the object of a pin.

    Raises:
        ValueError: the format does not allow this name of a pin.
    """
    if not _PIN_NAME.fullmatch(name) or not is_path(f"{name}.json"):
        raise ValueError(f"{name!r} is no name of a pin: up to 64 letters, digits, _, and . - after the first")
    return f"{PINS}{name}.json"


def parse_pin_name(name: str) -> str | None:
    """The pin's own name in an object's name, or None for any other name."""
    own = name.removeprefix(PINS).removesuffix(".json")
    return own if name == f"{PINS}{own}.json" and _PIN_NAME.fullmatch(own) and is_path(name) else None


def signature_name(sha256: str, keyid: str) -> str:
    """Name of a key's signature of the message that has a digest."""
    return f"{SIGNATURES}{sha256}-{keyid}.json"


def parse_signature_name(name: str) -> str | None:
    """The digest of the signed message in a signature's name, or None for any other name."""
    match = _SIGNATURE.fullmatch(name)
    return match[1] if match else None


def layout_name(sha256: str) -> str:
    """Name of a layout."""
    return f"{LAYOUTS}{sha256}.json"


def new_salt() -> str:
    """A part of a name that no object ever had (SPEC.md section 13)."""
    return secrets.token_hex(8)


def pack_name(sha256: str, salt: str) -> str:
    """Name that a writer gives a pack."""
    return f"{PACKS}{sha256}-{salt}.safetensors"


def is_pack_name(name: str, sha256: str) -> bool:
    """True for a name that a writer gives a pack with this digest."""
    return re.fullmatch(rf"{PACKS}{sha256}-[0-9a-f]{{16}}\.safetensors", name) is not None


def fingerprints_name(sha256: str) -> str:
    """Name of an object of tensor fingerprints."""
    return f"{FINGERPRINTS}{sha256}.bin"


def file_name(sha256: str, salt: str) -> str:
    """Name that a writer gives a file published with a checkpoint."""
    return f"{FILES}{sha256}-{salt}"


def retired_name(name: str) -> str:
    """Name of the copy of a manifest or shortcut that was dropped."""
    return RETIRED + name


def parse_retired_name(name: str) -> str | None:
    """The name of the manifest or shortcut in the name of its copy, or None for any other name."""
    original = name.removeprefix(RETIRED)
    return original if original != name and (_MANIFEST.fullmatch(original) or _SHORTCUT.fullmatch(original)) else None


def is_path(path: str) -> bool:
    """True for a path that the format allows; such a path cannot leave the root (SPEC.md section 4.4)."""
    return len(path) <= MAX_PATH and _PATH.fullmatch(path) is not None


def check_path(path: str, *, prefix: str = "", object: str) -> None:
    """Check a path of a manifest.

    Raises:
        MalformedError: the path could leave the root, or is in another folder than `prefix`.
    """
    if len(path) > MAX_PATH:
        raise MalformedError(f"the path {path[:80]!r}… is too long", object=object, rule="TD-PTH-002")
    if not is_path(path):
        raise MalformedError(f"{path!r} is no path of the format", object=object, rule="TD-PTH-001")
    if not path.startswith(prefix):
        rule = "TD-PTH-004" if prefix == FILES else "TD-PTH-003"
        raise MalformedError(f"{path!r} does not begin with {prefix!r}", object=object, rule=rule)


def check_annotations(annotations: dict[str, str], *, object: str) -> None:
    """Check the limits of annotations (SPEC.md section 16).

    Raises:
        LimitError: more than 64 keys, or a key and value of more than 4096 bytes.
    """
    if len(annotations) > 64:
        raise LimitError(f"{len(annotations)} annotations, more than 64", object=object, rule="TD-LIM-004")
    for key, value in annotations.items():
        if len(key.encode()) + len(value.encode()) > 4096:
            raise LimitError(f"the annotation {key[:40]!r} is longer than 4096 bytes", object=object, rule="TD-LIM-001")


def now() -> str:
    """The current time in the format's notation."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
