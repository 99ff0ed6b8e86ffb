"""The answers of an adapter (ADAPTER.md), and the check that they keep the protocol."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from .names import CAPABILITIES, ERRORS, FAILED, LEVELS, PROTOCOL, ROLES


class AdapterError(Exception):
    """The adapter broke the protocol: it crashed, hung, or gave an answer that is none. Never a pass.

    `stderr` is the end of what it wrote to standard error.
    """

    def __init__(self, message: str, stderr: str = "") -> None:
        super().__init__(message)
        self.stderr = stderr


@dataclass(frozen=True)
class Done:
    """`ok`: the whole answer."""

    members: Mapping[str, Any]


@dataclass(frozen=True)
class Refused:
    """`error`: rejected under a name of SPEC.md section 17, or `failed`; what else it says is for people."""

    error: str
    object: str | None = None
    rule: str | None = None
    message: str | None = None

    def describe(self) -> str:
        """The rejection in one line."""
        parts = [str(part) for part in (self.object, self.rule, self.message) if part]
        return f"{self.error} ({', '.join(parts)})" if parts else self.error


@dataclass(frozen=True)
class Declined:
    """`unsupported`: the adapter does not do this."""

    why: str


Answer = Done | Refused | Declined


@dataclass(frozen=True)
class Hello:
    """What an adapter says about itself."""

    name: str
    version: str
    spec: str
    roles: tuple[str, ...]
    levels: tuple[str, ...]
    capabilities: tuple[str, ...] = ()
    memory: int | None = None

    @property
    def title(self) -> str:
        """The name, with the version where there is one."""
        return f"{self.name} {self.version}".rstrip()


@dataclass(frozen=True)
class Killed:
    """What a killed or finished one-shot process showed."""

    finished: bool
    seconds: float
    answer: Answer | None = None


class Memory(Protocol):
    """A measurement of the memory of an adapter's processes, begun when it was made."""

    def growth(self) -> int:
        """Bytes by which the peak exceeded what was in use at the beginning."""


class Watch(Protocol):
    """Decides when a process is killed."""

    def due(self, seconds: float) -> bool:
        """Whether to kill a process that has run for so long. Asked again and again."""


class Adapter:
    """What the runner talks to."""

    holds: bool = True
    """Whether a state is held from one request to the next."""
    kills: bool = False
    """Whether `run_once` works."""
    form: str = ""
    """How it is run, for reports."""

    def hello(self, timeout: float) -> Hello:
        """Start if need be, and ask who it is."""
        raise NotImplementedError

    def call(self, op: str, members: Mapping[str, Any], timeout: float) -> Answer:
        """Do one request. Raises AdapterError; the next call then starts anew."""
        raise NotImplementedError

    def run_once(self, op: str, members: Mapping[str, Any], timeout: float, watch: Watch | None = None) -> Killed:
        """Do one request in the one-shot form, in a process that `watch` may kill."""
        raise NotImplementedError

    def measure(self) -> Memory | None:
        """Begin to measure memory; None where that is not possible."""
        return None

    def complaints(self) -> str:
        """The end of what it wrote to standard error since it was asked last."""
        return ""

    def restart(self) -> None:
        """Kill it, so that it holds nothing; the next call starts it anew."""

    def close(self) -> None:
        """End it."""


def _reject_constant(literal: str) -> object:
    raise ValueError(f"{literal} is no JSON")


def parse_object(text: str) -> dict[str, Any]:
    """One line as a JSON object. Raises AdapterError."""
    shown = text if len(text) <= 200 else text[:200] + "…"
    try:
        value = json.loads(text, parse_constant=_reject_constant)
    except (ValueError, RecursionError) as error:
        raise AdapterError(f"the answer is no JSON ({error}): {shown!r}") from error
    if not isinstance(value, dict):
        raise AdapterError(f"the answer is no JSON object: {shown!r}")
    return value


def parse_answer(members: Mapping[str, Any]) -> Answer:
    """The meaning of an answer. Raises AdapterError for one that ADAPTER.md does not know."""
    kinds = [kind for kind in ("ok", "error", "unsupported", FAILED) if kind in members]
    if len(kinds) != 1:
        raise AdapterError(f"the answer has not exactly one of ok, error, unsupported and failed: {dict(members)!r}")
    if kinds == ["ok"]:
        if members["ok"] is not True:
            raise AdapterError(f"ok is {members['ok']!r}, not true")
        return Done(members)
    if kinds == ["unsupported"]:
        return Declined(str(members["unsupported"]))
    if kinds == [FAILED]:
        return Refused(FAILED, message=str(members[FAILED]))
    error = members["error"]
    if not isinstance(error, str) or error not in ERRORS:
        raise AdapterError(f"error {error!r} is no name of SPEC.md section 17")
    texts = {key: str(members[key]) for key in ("object", "rule", "message") if members.get(key) is not None}
    return Refused(error, **texts)


def _names(members: Mapping[str, Any], key: str, among: Iterable[str]) -> tuple[str, ...]:
    value = members.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) and item in among for item in value):
        raise AdapterError(f"hello: {key} is {value!r}, no list of names out of {', '.join(among)}")
    return tuple(value)


def parse_hello(answer: Answer) -> Hello:
    """What the answer to hello says. Raises AdapterError."""
    if not isinstance(answer, Done):
        raise AdapterError(f"hello was not answered with ok: {answer}")
    members = answer.members
    if members.get("protocol") != PROTOCOL:
        raise AdapterError(f"hello: protocol is {members.get('protocol')!r}, not {PROTOCOL}")
    texts = [members.get(key) for key in ("name", "version", "spec")]
    if not all(isinstance(text, str) and text for text in texts):
        raise AdapterError("hello: name, version and spec have to be strings that are not empty")
    limits = members.get("limits", {})
    memory = limits.get("memory") if isinstance(limits, dict) else limits
    if memory is not None and (not isinstance(memory, int) or isinstance(memory, bool) or memory < 0):
        raise AdapterError(f"hello: limits is {limits!r}")
    return Hello(
        str(texts[0]),
        str(texts[1]),
        str(texts[2]),
        _names(members, "roles", ROLES),
        _names(members, "levels", LEVELS),
        _names(members, "capabilities", CAPABILITIES),
        memory,
    )


@dataclass(frozen=True)
class Reported:
    """A fault as a verifier reports it."""

    error: str
    object: str | None


def parse_faults(answer: Answer) -> list[Reported]:
    """The faults in the answer to verify. Raises AdapterError where they keep not to the protocol."""
    if isinstance(answer, Refused):
        return [Reported(answer.error, answer.object)]
    if not isinstance(answer, Done):
        raise AdapterError("verify was not done")
    faults = answer.members.get("faults")
    if not isinstance(faults, list):
        raise AdapterError("the answer to verify has no list of faults")
    found = []
    for fault in faults:
        error = fault.get("error") if isinstance(fault, dict) else None
        if not isinstance(error, str) or error not in ERRORS:
            raise AdapterError(f"a fault has no error of SPEC.md section 17: {fault!r}")
        name = fault.get("object")
        if name is not None and not isinstance(name, str):
            raise AdapterError(f"a fault's object is no string: {fault!r}")
        found.append(Reported(error, name))
    return found
