"""The closed set of errors (SPEC.md section 17).

Every fault that data can have is one of eight errors. Each says which object is at fault, which rule of SPEC.md it
breaks, and what to do about it. Misuse of this library (a wrong argument, a read-only array) raises the usual
``ValueError`` or ``TypeError`` instead.
"""

from __future__ import annotations

import errno
import traceback
from pathlib import Path
from typing import ClassVar

#: Letters of a reason, or of an object's name, that an error keeps: others wrote them, at any length.
_MOST, _END = 600, 100
#: How a reason begins that needs no object to be a sentence.
_WHOLE = ("there is ", "the chain ", "version ", "the newest version ")
#: Words with which a reason goes on where the object is its subject.
_VERBS = frozenset(
    "is are has holds was were lacks does exists leads names cannot could belongs follows ends changed lies".split()
)


class _Brief(Exception):
    """An error of which a notebook shows the user's own lines and what it says, not the library's lines."""

    @property
    def sentence(self) -> str:
        """What is wrong, and what to do about it, as a person reads it."""
        return str(self)

    def _render_traceback_(self) -> list[str]:
        """What IPython shows; `traceback.print_exc()` shows all lines."""
        package = str(Path(__file__).parent)
        own = [frame for frame in traceback.extract_tb(self.__traceback__) if not _is_of(frame.filename, package)]
        return [*map(_line, own), f"{type(self).__name__}: {self.sentence}"]


def _line(frame: traceback.FrameSummary) -> str:
    """A line of the user's; of a cell, whose file is a temporary one, without its name."""
    where = f"line {frame.lineno}" if "ipykernel" in frame.filename else f"{frame.filename}, line {frame.lineno}"
    return f"  {where}: {frame.line}"


def _is_of(file: str, package: str) -> bool:
    """True for a line of this package, or of IPython, which runs a notebook's cells."""
    return file.startswith(package) or f"{Path('/IPython/core/')}" in file


class TensorDeltaError(_Brief):
    """A fault of the data: an object, the rule that it breaks, and what to do about it.

    Attributes:
        name: the error's name in SPEC.md, such as ``"wrong-base"``.
        object: the object at fault: its name under the chain's root, or a path.
        rule: the id of the requirement that was broken, such as ``"TD-CHK-004"``.
        reason: what is wrong, in one clause.
        advice: what to do about it.
    """

    name: ClassVar[str] = "error"
    default_advice: ClassVar[str] = ""

    def __init__(self, reason: str, *, object: str, rule: str, advice: str | None = None) -> None:
        self.reason = _bounded(reason)
        self.object = _bounded(object)
        self.rule = rule
        self.advice = self.default_advice if advice is None else advice
        super().__init__(self.reason)

    def __str__(self) -> str:
        return f"{self.name}: {self.object}: {self.reason} [{self.rule}]. {self.advice}"

    @property
    def sentence(self) -> str:
        """What is wrong, and what to do about it, as a person reads it: without the rule, which implementers need."""
        subject = f"{self.object} " if self.reason.partition(" ")[0] in _VERBS else f"{self.object}: "
        return f"{'' if self.reason.startswith(_WHOLE) else subject}{self.reason}. {self.advice}".rstrip()

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.reason, self.object, self.rule, self.advice)


def _bounded(text: str) -> str:
    """A text without its middle, if it is long: whoever wrote a manifest decides how long its strings are."""
    if len(text) <= _MOST:
        return text
    return f"{text[: _MOST - _END]} … ({len(text):,} letters) … {text[-_END:]}"


def _rebuild(kind: type[TensorDeltaError], reason: str, object: str, rule: str, advice: str) -> TensorDeltaError:
    return kind(reason, object=object, rule=rule, advice=advice)


class MalformedError(TensorDeltaError, ValueError):
    """The bytes break a rule of the format."""

    name = "malformed"
    default_advice = (
        "The writer of this object broke the format: report it to them and have the version published again."
    )


class UnsupportedError(TensorDeltaError, NotImplementedError):
    """The bytes need a feature that this reader does not know."""

    name = "unsupported"
    default_advice = "Use a reader that knows it, or have the writer publish without it."


class LimitError(TensorDeltaError, OverflowError):
    """Beyond a limit of the format or of the reader's memory budget; found before anything is allocated."""

    name = "limit"
    default_advice = "If the limit is the memory budget, raise it; the format's own limits have no switch."


class IntegrityError(TensorDeltaError, ValueError):
    """A size, SHA-256 or fingerprint does not match the bytes or the words."""

    name = "integrity"
    default_advice = "The object was altered or damaged: restore it from a copy, or publish a full version after it."


class WrongBaseError(TensorDeltaError, ValueError):
    """The state is not the base of the manifest."""

    name = "wrong-base"
    default_advice = "Load the version in full, or start from a state of this chain."


class MissingError(TensorDeltaError, LookupError):
    """There is no such version, chain or route, or a required object was deleted."""

    name = "missing"
    default_advice = "Check the address and the version; if retention dropped it, choose a version that remains."


class ConflictError(TensorDeltaError, RuntimeError):
    """Another chain, a shortcut that does not match its version, or a second writer."""

    name = "conflict"
    default_advice = "Make sure that one writer owns this chain, and that the address is the run you mean."


class UntrustedError(TensorDeltaError, PermissionError):
    """A signature is missing or wrong, a version is older than one held before, or a source is not allowed."""

    name = "untrusted"
    default_advice = "Allow it explicitly if you trust it."


class StoreError(OSError, _Brief):
    """The store itself failed, after retries: no network, no permission, or throttled (SPEC.md section 12.1).

    It is outside the closed set: it is about the store, not the data, and never means that an object is missing
    (TD-STO-003).

    Attributes:
        address: the root, as a user writes it.
        operation: what failed, such as ``"read"``.
        object: the object's name or prefix; several are separated by commas.
        cause: the message of the store or its client.
        advice: what to do about it.
    """

    default_advice: ClassVar[str] = "Check the network, the address and your permissions, then try again."

    def __init__(self, address: str, operation: str, object: str, cause: str, advice: str | None = None) -> None:
        self.address = address
        self.operation = operation
        self.object = object
        self.cause = cause
        self.advice = self.default_advice if advice is None else advice
        super().__init__(f"{address}: {operation} of {object or 'the root'} failed: {cause}. {self.advice}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.address, self.operation, self.object, self.cause, self.advice)


#: The closed set, by the names that SPEC.md gives.
ERRORS: dict[str, type[TensorDeltaError]] = {
    kind.name: kind
    for kind in (
        MalformedError,
        UnsupportedError,
        LimitError,
        IntegrityError,
        WrongBaseError,
        MissingError,
        ConflictError,
        UntrustedError,
    )
}

#: What to do about a failure of this machine, by its number.
_MACHINE: dict[int, str] = {
    errno.ENOSPC: "Free some room on that disk, then do it again.",
    errno.EDQUOT: "Free some room, or have the quota raised, then do it again.",
    errno.EFBIG: "Raise the limit of file sizes (`ulimit -f`), or choose another file system, then do it again.",
    errno.EMFILE: "Raise the limit of open files (`ulimit -n`), then do it again.",
    errno.ENFILE: "The whole machine has too many files open: close some, then do it again.",
    errno.EIO: "The disk or its file system fails, as the system's log should say: do it again once that is mended.",
    errno.EROFS: "Choose a folder that can be written to.",
    errno.EACCES: "Look who may read and write it (`ls -ld`), or name another place.",
    errno.EPERM: "Look who may read and write it (`ls -ld`), or name another place.",
    errno.ENOTDIR: "A part of this path is a file: name another place.",
    errno.EISDIR: "Name a file.",
    errno.ENOENT: "Name another, or make it first.",
}


def machine_advice(error: OSError) -> str:
    """What to do about a failure of this machine; empty where its own message says enough."""
    return "" if isinstance(error, StoreError) else _MACHINE.get(error.errno or 0, "")
