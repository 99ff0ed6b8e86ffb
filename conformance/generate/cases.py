"""The cases: their registry, and how they are written to folders (CASES.md)."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from requirements import extract

from generate.builder import Builder, plain_pack
from generate.documents import Stored, documents
from generate.model import Model, ordered

CONFORMANCE = Path(__file__).resolve().parent.parent
SINCE = "1.0-rc.1"
LEVELS = frozenset(
    "reader-core reader-exponent chain follow partial slice sources verifier"
    " checkout writer-core writer-exponent signed".split()
)

Verify = bool | None | Sequence[Mapping[str, Any]]
Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Case:
    """One case. Its chain and its files are made when they are asked for.

    Attributes:
        verify: True: for a valid case that no fault may be found; for an invalid one that a verifier reports `errors`
            of one of the objects that differ from the twin's. A list: the faults. None: no statement.
        made: the steps, and the files that they name, from the chain.
        one_read: what was given to `read` or `reject`.
    """

    id: str
    area: str
    valid: bool
    title: str
    requirements: tuple[str, ...]
    role: str
    level: str
    kind: str
    chain: Callable[[], Builder] | None
    made: Callable[[Builder | None], tuple[list[dict[str, Any]], dict[str, bytes]]]
    errors: tuple[str, ...] = ()
    twin: str | None = None
    verify: Verify = None
    needs: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    one_read: OneRead | None = field(default=None, repr=False)

    @cached_property
    def builder(self) -> Builder | None:
        """The chain, made once; not to be changed."""
        return self.chain() if self.chain else None

    @property
    def objects(self) -> dict[str, bytes]:
        """The chain's objects by name."""
        return self.builder.objects if self.builder else {}

    @cached_property
    def content(self) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
        """The steps, and the files beside the chain."""
        return self.made(self.builder)

    @property
    def folder(self) -> str:
        """The case's place under vectors/."""
        return f"{self.area}/{'valid' if self.valid else 'invalid'}/{self.id}"


CASES: dict[str, Case] = {}


_TWICE: list[str] = []


def register(made: Case) -> Case:
    """Add a case. Two of one name are reported when the cases are written."""
    if made.id in CASES:
        _TWICE.append(made.id)
    CASES[made.id] = made
    return made


def case(
    slug: str,
    *,
    area: str,
    valid: bool,
    title: str,
    requirements: Sequence[str],
    role: str = "reader",
    level: str = "reader-core",
    kind: str = "read",
    steps: Sequence[Mapping[str, Any]] = (),
    files: Files | Callable[[], Files] | None = None,
    chain: Callable[[], Builder] | None = None,
    error: str | Sequence[str] = (),
    twin: str | None = None,
    verify: Verify = None,
    needs: Sequence[str] = (),
    flags: Sequence[str] = (),
) -> Case:
    """Register a case of any form.

    Args:
        steps: as in case.json.
        files: bytes by path relative to the case's folder; a function makes them when they are written.
        chain: makes what lies in `chain`.
        error: what a verifier reports, with verify True.
    """

    def made(builder: Builder | None) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
        given = files() if callable(files) else files or {}
        return [json.loads(json.dumps(step)) for step in steps], dict(given)

    return register(
        Case(
            id=slug,
            area=area,
            valid=valid,
            title=title,
            requirements=tuple(requirements),
            role=role,
            level=level,
            kind=kind,
            chain=chain,
            made=made,
            errors=_names(error),
            twin=twin,
            verify=verify,
            needs=tuple(needs),
            flags=tuple(flags),
        )
    )


def read(
    slug: str,
    *,
    area: str,
    title: str,
    requirements: Sequence[str],
    chain: Callable[[], Builder],
    to: int | None = 1,
    held: int | None = 0,
    level: str = "reader-core",
    needs: Sequence[str] = (),
    flags: Sequence[str] = (),
    verify: Verify = True,
    role: str = "reader",
    input: Mapping[str, Any] | None = None,
    expect: Mapping[str, Any] | None = None,
    files: Files | None = None,
    before: Model | None = None,
    remembered: int | None = -1,
) -> Case:
    """Register a valid case of one read.

    Args:
        to: the version wanted; None: the newest.
        held: the version whose state is held before; None: nothing is held.
        role: with "verifier" nothing is read, and the chain is only verified.
        input, expect: more members of the step's `input` and `expect`; with `any` it is all of `expect`. With `tensors`
            the states are reduced to them.
        files: more files of the case.
        before: the state held, if it is none of the chain's.
        remembered: the version given with the held state; that of `held` unless given.
    """
    step = OneRead(
        to, held, dict(input or {}), dict(expect or {}), dict(files or {}), before, remembered, (), "huge" in flags
    )
    return _one_read(
        slug, step, area, True, title, requirements, chain, level, needs, flags, verify, role, (), twin=None
    )


def reject(
    slug: str,
    *,
    area: str,
    title: str,
    requirements: Sequence[str],
    chain: Callable[[], Builder],
    error: str | Sequence[str],
    twin: str,
    to: int | None = 1,
    held: int | None = 0,
    level: str = "reader-core",
    needs: Sequence[str] = (),
    flags: Sequence[str] = (),
    verify: Verify = True,
    role: str = "reader",
    input: Mapping[str, Any] | None = None,
    expect: Mapping[str, Any] | None = None,
    files: Files | None = None,
    before: Model | None = None,
    remembered: int | None = -1,
) -> Case:
    """Register an invalid case of one read, which leaves the state as it was; see `read`.

    Args:
        error: the name, or names, under which the rejection may be reported.
        twin: the valid case that differs by the fault alone.
        verify: True: a verifier reports one of `error` of one of the objects that the twin's chain lacks or has other.
    """
    errors = _names(error)
    step = OneRead(
        to, held, dict(input or {}), dict(expect or {}), dict(files or {}), before, remembered, errors, "huge" in flags
    )
    return _one_read(
        slug, step, area, False, title, requirements, chain, level, needs, flags, verify, role, errors, twin=twin
    )


@dataclass(frozen=True)
class OneRead:
    """The step of a case that is one read; see `read`."""

    to: int | None
    held: int | None
    input: dict[str, Any]
    expect: dict[str, Any]
    files: dict[str, bytes]
    before: Model | None
    remembered: int | None
    errors: tuple[str, ...]
    huge: bool

    def __call__(self, builder: Builder | None) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
        assert builder is not None
        files = dict(self.files)
        chosen = self.input.get("tensors")

        def put(name: str, model: Model) -> str:
            files[name] = state_file(model if chosen is None else {n: t for n, t in model.items() if n in chosen})
            return name

        before = builder.models[self.held] if self.before is None and self.held is not None else self.before
        held: dict[str, Any] | None = None
        if before is not None:
            version = self.held if self.remembered == -1 else self.remembered
            held = {"state": put("held.safetensors", before), "version": version}
        expect: dict[str, Any]
        if self.errors:
            expect = {"error": list(self.errors), "state": held and held["state"]}
        else:
            version = max(builder.models) if self.to is None else self.to
            expect = {"version": version, "state": self._after(builder, version, put)}
        step = {
            "op": "read",
            "input": {"chain": "chain", "held": held, "to": self.to} | self.input,
            "expect": self.expect if "any" in self.expect else expect | self.expect,
        }
        return [step], files

    @property
    def plain(self) -> bool:
        """Whether the held state is one of the chain's, under its own version, and nothing else is asked for."""
        return not self.input and self.before is None and self.remembered == -1

    def _after(self, builder: Builder, version: int, put: Callable[[str, Model], str]) -> Any:
        if not self.huge:
            return put("expected.safetensors", builder.models[version])
        manifest = builder.manifests[version]
        return {"fingerprint": manifest["fingerprint"], "layout": f"chain/layouts/{manifest['layout']}.json"}


def _one_read(
    slug: str,
    step: OneRead,
    area: str,
    valid: bool,
    title: str,
    requirements: Sequence[str],
    chain: Callable[[], Builder],
    level: str,
    needs: Sequence[str],
    flags: Sequence[str],
    verify: Verify,
    role: str,
    errors: tuple[str, ...],
    *,
    twin: str | None,
) -> Case:
    only_verify = role == "verifier"
    return register(
        Case(
            id=slug,
            area=area,
            valid=valid,
            title=title,
            requirements=tuple(requirements),
            role=role,
            level="verifier" if only_verify else level,
            kind="read",
            chain=chain,
            made=(lambda _: ([], dict(step.files))) if only_verify else step,
            errors=errors,
            twin=twin,
            verify=verify,
            needs=tuple(needs),
            flags=tuple(flags),
            one_read=step,
        )
    )


def _names(error: str | Sequence[str]) -> tuple[str, ...]:
    return (error,) if isinstance(error, str) else tuple(error)


def state_file(model: Model) -> bytes:
    """A state as a safetensors file."""
    return plain_pack(model, order=ordered(model))


# -- checks ------------------------------------------------------------------------------------------------------------


def requirement_ids() -> set[str]:
    """The ids of SPEC.md."""
    return {each.id for each in extract((CONFORMANCE.parent / "SPEC.md").read_text(encoding="utf-8"))}


_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def problems(each: Case, cases: Mapping[str, Case], ids: set[str]) -> list[str]:
    """What is wrong with a case before it is made."""
    found = []
    if not _SLUG.fullmatch(each.id):
        found.append("the slug is not kebab-case")
    if not each.title or each.title.endswith("."):
        found.append("the title is empty or ends with a full stop")
    if not each.requirements:
        found.append("it names no requirement")
    found += [f"{name} is no requirement" for name in each.requirements if name not in ids]
    if each.level not in LEVELS:
        found.append(f"{each.level} is no level")
    if each.valid and each.twin is not None:
        found.append("a valid case has no twin")
    if not each.valid and (each.twin is not None or each.kind != "scenario"):
        if each.twin is None or each.twin not in cases:
            found.append(f"the twin {each.twin} does not exist")
        elif not cases[each.twin].valid:
            found.append(f"the twin {each.twin} is not valid")
    return found


def faults(each: Case, cases: Mapping[str, Case]) -> Any:
    """`verify` of case.json.

    Raises:
        ValueError: the chain does not differ from its twin's.
    """
    if each.verify is None or each.verify is False:
        return None
    if each.verify is not True:
        return {"faults": list(each.verify)}
    if each.valid:
        return {"faults": []}
    assert each.twin is not None
    twin, own = cases[each.twin].objects, each.objects
    names = {name for name in twin.keys() | own.keys() if twin.get(name) != own.get(name)}
    if not names:
        raise ValueError(f"{each.id}: the chain is its twin's, so a verifier finds nothing")
    for name in list(names):
        names |= _named_by(own.get(name, b""))
    return {"faults": [{"error": list(each.errors), "object": sorted(names)}]}


def _named_by(data: bytes) -> set[str]:
    """The objects that a manifest names, which may be blamed for disagreeing with it."""
    try:
        document = json.loads(data)
        found = [each["path"] for each in [*document["packs"], *document.get("files", [])]]
        found.append(f"layouts/{document['layout']}.json")
        found.append(f"fingerprints/{document.get('tensor_fingerprints')}.bin")
        return {name for name in found if isinstance(name, str) and name}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return set()


def _given(each: Case) -> tuple[Any, ...]:
    """All of a case but what is expected."""
    steps, files = each.content
    asked = [{member: value for member, value in step.items() if member != "expect"} for step in steps]
    text = json.dumps(asked)
    return (
        each.objects,
        asked,
        {name: data for name, data in files.items() if name.split("/")[0] in text},
    )


def _digest_of(each: Case) -> str:
    """Equal for two cases that do the same with the same chain."""
    objects, asked, files = _given(each)
    found = hashlib.sha256(json.dumps([each.role, asked], sort_keys=True).encode())
    for name, data in sorted({**objects, **files}.items()):
        found.update(f"{name} {len(data)} ".encode() + data)
    return found.hexdigest()


def document(each: Case, cases: Mapping[str, Case]) -> dict[str, Any]:
    """case.json.

    Raises:
        ValueError: an invalid case that does not differ from its twin.
    """
    steps, _ = each.content
    if each.twin is not None and _given(each) == _given(cases[each.twin]):
        raise ValueError(f"{each.id}: nothing differs from its twin {each.twin}")
    return {
        "id": each.id,
        "title": each.title,
        "requirements": list(each.requirements),
        "role": each.role,
        "level": each.level,
        "kind": each.kind,
        "steps": steps,
        "verify": faults(each, cases),
        "twin": each.twin,
        "needs": list(each.needs),
        "flags": list(each.flags),
        "since": SINCE,
    }


def files_of(each: Case) -> dict[str, bytes]:
    """The files of a case but case.json, by path relative to its folder."""
    if each.builder is not None and each.builder.outside:
        raise ValueError(f"{each.id}: a link is made by a step, not by the builder")
    return {f"chain/{name}": data for name, data in each.objects.items()} | each.content[1]


def write(out: Path, cases: Iterable[Case] | None = None) -> int:
    """Write the documents of cases to a folder anew; gives the number of cases.

    Raises:
        ValueError: a case is not as it has to be; all that is wrong is named.
    """
    chosen = list(CASES.values() if cases is None else cases)
    names = {each.id for each in chosen}
    ids = requirement_ids()
    found = [f"{name}: two cases have this id" for name in _TWICE]
    found += [f"{each.id}: {text}" for each in chosen for text in problems(each, CASES, ids)]
    if found:
        raise ValueError("\n".join(found))
    wrong = []
    stored: dict[str, Stored] = {}
    seen: dict[str, str] = {}
    for each in sorted(chosen, key=lambda each: each.folder):
        try:
            like = CASES[each.twin].folder if each.twin is not None and each.twin in names else None
            stored[each.folder] = Stored(document(each, CASES), files_of(each), like)
            other = seen.setdefault(_digest_of(each), each.id)
            if other != each.id:
                wrong.append(f"{each.id}: it is {other} again")
        except (ValueError, KeyError, AssertionError) as error:
            wrong.append(f"{each.id}: {type(error).__name__}: {error}")
    if wrong:
        raise ValueError("\n".join(wrong))
    # Written aside: a reader of the vectors finds the old ones meanwhile, and a fault leaves them.
    aside = out.with_name(f".{out.name}")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for name, data in documents(stored).items():
        path = aside / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    shutil.rmtree(out, ignore_errors=True)
    aside.rename(out)
    return len(chosen)
