"""Cases: the case.json of one, its files, and the check that it keeps the contract (CASES.md)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .names import CAPABILITIES, ERRORS, FAILED, FLAGS, KINDS, LEVELS, OPERATIONS, ROLES

_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_REQUIREMENT = re.compile(r"TD-[A-Z]{3}-[0-9]{3}")
_SINCE = re.compile(r"[0-9]+\.[0-9]+(-[a-z0-9.]+)?")
_MEMBERS = frozenset("id title requirements role level kind steps verify twin needs flags since".split())
_EXPECTATIONS = frozenset("version state error any files faults memory".split())
_STARTS = ("read", "prepare")
_CHANGES = ("put", "remove", "restart", "link")


class CaseError(ValueError):
    """What is wrong with a case."""


@dataclass(frozen=True)
class HugeState:
    """A state given by its fingerprint (16 hex digits) and a layout object's file."""

    fingerprint: str
    layout: str


StateRef = str | HugeState | None
"""A safetensors file of the case's folder, a state too large for one, or None: nothing is held."""


@dataclass(frozen=True)
class Fault:
    """A fault that a verifier has to report: under one of the errors, of one of the objects (empty: of any)."""

    errors: tuple[str, ...]
    objects: tuple[str, ...]


@dataclass(frozen=True)
class Expectation:
    """What has to come of a step. `alternatives` stands alone: one of them has to hold."""

    errors: tuple[str, ...] = ()
    version: int | None = None
    has_state: bool = False
    state: StateRef = None
    files: Mapping[str, str] | None = None
    faults: tuple[Fault, ...] | None = None
    memory: int | None = None
    alternatives: tuple[Expectation, ...] = ()

    def each(self) -> tuple[Expectation, ...]:
        """The alternatives, or this one."""
        return self.alternatives or (self,)


@dataclass(frozen=True)
class Serve:
    """A folder of the case that is served over HTTP during a request.

    `folder`: which; `chain` is then a URL in the request, and of any other the sources that name it become one.
    `status`: by name, what is answered in place of a file. `absent`: names of which there is no file, and which may be
    asked for.
    """

    folder: str = "chain"
    status: Mapping[str, int] = field(default_factory=dict)
    absent: tuple[str, ...] = ()


@dataclass(frozen=True)
class Step:
    """One step: a request (`op`), or a change of the case's copy (one of `put`, `remove`, `restart`, `link`)."""

    op: str | None = None
    input: Mapping[str, Any] = field(default_factory=dict)
    expect: Expectation = Expectation()
    serve: Serve | None = None
    kill: int = 0
    race: tuple[Mapping[str, Any], ...] = ()
    put: str | None = None
    remove: tuple[str, ...] = ()
    restart: bool = False
    link: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """One case of the suite. `area` and `valid` come from where it lies.

    `files`: all its files, `case.json` included, by path relative to its folder. A file is read when it is used.
    """

    files: Mapping[str, bytes] = field(repr=False, compare=False)
    area: str
    valid: bool
    id: str
    title: str
    requirements: tuple[str, ...]
    role: str
    level: str
    kind: str
    steps: tuple[Step, ...]
    verify: tuple[Fault, ...] | None
    twin: str | None
    needs: tuple[str, ...]
    flags: tuple[str, ...]
    since: str

    @property
    def path(self) -> str:
        """Where the case lies among the vectors, such as `positions/invalid/gap-past-the-end`."""
        return f"{self.area}/{'valid' if self.valid else 'invalid'}/{self.id}"

    def uses(self, member: str) -> bool:
        """Whether a request of the case has this member."""
        return any(member in request for step in self.steps for request in (step.input, *step.race))


def _fail(what: str) -> CaseError:
    return CaseError(what)


def _members(value: object, where: str, allowed: Iterable[str]) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _fail(f"{where} is no object")
    unknown = sorted(set(value) - set(allowed))
    if unknown:
        raise _fail(f"{where} has unknown members: {', '.join(unknown)}")
    return value


def _string(value: object, where: str, among: Iterable[str] | None = None) -> str:
    if not isinstance(value, str):
        raise _fail(f"{where} is no string")
    if among is not None and value not in among:
        raise _fail(f"{where} is {value!r}, which is none of {', '.join(among)}")
    return value


def _strings(value: object, where: str, among: Iterable[str] | None = None) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise _fail(f"{where} is no list")
    return tuple(_string(item, f"an item of {where}", among) for item in value)


def _integer(value: object, where: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _fail(f"{where} is no count")
    return value


def _string_map(value: object, where: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise _fail(f"{where} is no object")
    return {key: _string(item, f"{where}.{key}") for key, item in value.items()}


def _state(value: object, where: str) -> StateRef:
    if value is None or isinstance(value, str):
        return value
    members = _members(value, where, ("fingerprint", "layout"))
    return HugeState(
        _string(members.get("fingerprint"), f"{where}.fingerprint"), _string(members.get("layout"), f"{where}.layout")
    )


def _faults(value: object, where: str) -> tuple[Fault, ...]:
    if not isinstance(value, list):
        raise _fail(f"{where} is no list")
    found = []
    for index, item in enumerate(value):
        members = _members(item, f"{where}[{index}]", ("error", "object"))
        errors = _strings(members.get("error"), f"{where}[{index}].error", ERRORS)
        if not errors:
            raise _fail(f"{where}[{index}].error is empty")
        found.append(Fault(errors, _strings(members.get("object", []), f"{where}[{index}].object")))
    return tuple(found)


def _expectation(value: object, where: str) -> Expectation:
    members = _members(value, where, _EXPECTATIONS)
    if "any" in members:
        if len(members) > 1 or not isinstance(members["any"], list) or len(members["any"]) < 2:
            raise _fail(f"{where}.any is not alone, or is no list of two or more")
        parts = [_expectation(item, f"{where}.any[{i}]") for i, item in enumerate(members["any"])]
        return Expectation(alternatives=tuple(parts))
    errors = _strings(members["error"], f"{where}.error", (*ERRORS, FAILED)) if "error" in members else ()
    if "error" in members and not errors:
        raise _fail(f"{where}.error is empty")
    return Expectation(
        errors=errors,
        version=_integer(members["version"], f"{where}.version") if "version" in members else None,
        has_state="state" in members,
        state=_state(members.get("state"), f"{where}.state"),
        files=_string_map(members["files"], f"{where}.files") if "files" in members else None,
        faults=_faults(members["faults"], f"{where}.faults") if "faults" in members else None,
        memory=_integer(members["memory"], f"{where}.memory") if "memory" in members else None,
    )


def _request(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _fail(f"{where} is no object")
    if "out" in value or "id" in value or "op" in value:
        raise _fail(f"{where} has a member that the runner adds")
    return value


def _serve(value: object, where: str) -> Serve:
    members = _members(value, where, ("folder", "status", "absent"))
    status = members.get("status", {})
    if not isinstance(status, dict):
        raise _fail(f"{where}.status is no object")
    return Serve(
        _string(members.get("folder", "chain"), f"{where}.folder"),
        {name: _integer(code, f"{where}.status") for name, code in status.items()},
        _strings(members.get("absent", []), f"{where}.absent"),
    )


def _operation(members: Mapping[str, Any], where: str) -> Step:
    op = _string(members["op"], f"{where}.op", OPERATIONS)
    kill = _integer(members.get("kill", 0), f"{where}.kill")
    if kill and op not in ("pull", "publish", "shortcut", "collect"):
        raise _fail(f"{where}.kill: {op} is not killed")
    race = members.get("race", [])
    if race and (op != "publish" or not isinstance(race, list) or len(race) < 2):
        raise _fail(f"{where}.race is no list of two or more requests to publish")
    expect = _expectation(members.get("expect"), f"{where}.expect")
    for part in expect.each():
        if op in ("read", "apply", "undo") and not part.errors and not part.has_state:
            raise _fail(f"{where}.expect has neither state nor error")
        if op == "verify" and part.faults is None:
            raise _fail(f"{where}.expect has no faults")
    return Step(
        op=op,
        input=_request(members.get("input", {}), f"{where}.input"),
        expect=expect,
        serve=_serve(members["serve"], f"{where}.serve") if "serve" in members else None,
        kill=kill,
        race=tuple(_request(item, f"{where}.race") for item in race),
    )


def _step(value: object, where: str) -> Step:
    if not isinstance(value, dict):
        raise _fail(f"{where} is no object")
    if "op" in value:
        return _operation(_members(value, where, ("op", "input", "expect", "serve", "kill", "race")), where)
    members = _members(value, where, _CHANGES)
    if len(members) != 1:
        raise _fail(f"{where} is not exactly one of op, {', '.join(_CHANGES)}")
    if members.get("restart", True) is not True:
        raise _fail(f"{where}.restart is not true")
    return Step(
        put=_string(members["put"], f"{where}.put") if "put" in members else None,
        remove=_strings(members["remove"], f"{where}.remove") if "remove" in members else (),
        restart="restart" in members,
        link=_string_map(members["link"], f"{where}.link") if "link" in members else {},
    )


def _check_held(steps: Iterable[Step]) -> None:
    """A read has to say what is held where nothing before it in the case does."""
    known = False
    for index, step in enumerate(steps):
        if step.restart:
            known = False
        elif step.op in _STARTS:
            if not known and "held" not in step.input:
                raise _fail(f"steps[{index}] does not say what is held, and nothing before it does")
            known = True


def load_case(path: str, files: Mapping[str, bytes]) -> Case:
    """The case `<area>/<valid|invalid>/<id>` with these files. Raises CaseError with what is wrong."""
    try:
        return _case(path, files)
    except (OSError, ValueError) as error:
        raise CaseError(f"{path}: {error}") from error


def _case(path: str, files: Mapping[str, bytes]) -> Case:
    area, half, folder = path.split("/")
    document = json.loads(files["case.json"])
    members = _members(document, "case.json", _MEMBERS)
    missing = sorted(_MEMBERS - set(members))
    if missing:
        raise _fail(f"case.json lacks {', '.join(missing)}")
    name = _string(members["id"], "id")
    if not _ID.fullmatch(name) or name != folder:
        raise _fail(f"id {name!r} is not the folder's name in lower case and hyphens")
    requirements = _strings(members["requirements"], "requirements")
    if not requirements or not all(map(_REQUIREMENT.fullmatch, requirements)):
        raise _fail("requirements is no list of ids such as TD-POS-001")
    if not isinstance(members["steps"], list):
        raise _fail("steps is no list")
    steps = tuple(_step(step, f"steps[{index}]") for index, step in enumerate(members["steps"]))
    _check_held(steps)
    verify = members["verify"]
    if verify is not None:
        verify = _faults(_members(verify, "verify", ("faults",)).get("faults"), "verify.faults")
    if not steps and verify is None:
        raise _fail("there is nothing to do: no steps, no verify")
    twin = members["twin"]
    if not _SINCE.fullmatch(_string(members["since"], "since")):
        raise _fail("since is no version of SPEC.md")
    return Case(
        files=files,
        area=area,
        valid=half == "valid",
        id=name,
        title=_string(members["title"], "title"),
        requirements=requirements,
        role=_string(members["role"], "role", ROLES),
        level=_string(members["level"], "level", LEVELS),
        kind=_string(members["kind"], "kind", KINDS),
        steps=steps,
        verify=verify,
        twin=None if twin is None else _string(twin, "twin"),
        needs=_strings(members["needs"], "needs", (*CAPABILITIES, *LEVELS)),
        flags=_strings(members["flags"], "flags", FLAGS),
        since=members["since"],
    )
