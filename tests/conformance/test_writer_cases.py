"""The cases for writers: a correct writer passes them, and each of its altered copies fails those named for it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from generate import cases
from tensordelta_conformance import Report, Suite, run, run_handler

HERE = Path(__file__).parent
SOURCE = (HERE / "slow_writer.py").read_text(encoding="utf-8")
MODULES = ("pins", "writer", "writer_chains", "writer_layouts", "writer_scenarios", "writer_upkeep")


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Suite:
    """The cases for writers, made anew."""
    out = tmp_path_factory.mktemp("vectors")
    for name in MODULES:
        importlib.import_module(f"generate.areas.{name}")
    cases.write(out, [each for each in cases.CASES.values() if each.role == "writer"])
    return Suite(out)


def loaded(text: str) -> Callable[[dict[str, Any]], dict[str, Any]]:
    module = ModuleType("altered_writer")
    exec(compile(text, "slow_writer.py", "exec"), module.__dict__)
    return module.handle


def outcomes(report: Report) -> dict[str, str]:
    return {each.case.id: each.status for each in report.checks}


@pytest.mark.slow
def test_a_correct_writer_passes(suite: Suite) -> None:
    report = run_handler(loaded(SOURCE), suite=suite)
    found = outcomes(report)
    assert {slug: status for slug, status in found.items() if status not in ("pass", "not-applicable")} == {}
    assert sum(status == "pass" for status in found.values()) >= 180
    # Only what kills the writer, or needs two of them, is left out.
    left = {each.id for each in suite.cases.values() if any(step.kill or step.race for step in each.steps)}
    assert {slug for slug, status in found.items() if status == "not-applicable"} == left


@pytest.mark.slow
def test_a_correct_writer_passes_killed_and_at_once(suite: Suite) -> None:
    report = run(program(HERE / "slow_writer.py"), suite=suite, only=["*killed*", "*at-once"])
    assert set(outcomes(report).values()) == {"pass"}
    assert len(report.checks) >= 8


def program(path: Path) -> list[str]:
    places = [str(HERE.parent.parent / "conformance")]
    start = f"import sys, runpy; sys.path[:0] = {places!r}; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], "
    return [sys.executable, "-c", f"{start}run_name='__main__')", str(path)]


@dataclass(frozen=True)
class Altered:
    """A writer with one fault.

    Attributes:
        changes: pieces of text, and what takes their place.
        cases: patterns of the cases that find it; each of them has to.
        broken: the requirement under which the judge finds it; empty where the answer or the state shows it.
    """

    name: str
    broken: str
    cases: tuple[str, ...]
    changes: tuple[tuple[str, str], ...] = field(repr=False)

    def text(self) -> str:
        text = SOURCE
        for old, new in self.changes:
            assert text.count(old) == 1, (self.name, old)
            text = text.replace(old, new)
        return text


def altered(name: str, broken: str, slugs: str, *changes: tuple[str, str]) -> Altered:
    return Altered(
        name, broken and (broken if broken == "ADAPTER.md" else f"TD-{broken}"), tuple(slugs.split()), changes
    )


LISTED = "        if differs(base[name], state[name]):\n"
CHUNK = "chunk_for(base, state, name, values=values, **how)"
SEEN = (
    "        words = state[name].words.copy()\n"
    "{change}"
    "        seen = {{**state, name: state[name]._replace(words=words)}}\n"
    "        if differs(base[name], seen[name]):\n"
)
START = "start = older[-1], state_of(root, older[-1])"
SNAPSHOTS = ("OPERATIONS = {", "SNAPSHOTS: dict[Any, Model] = {}\nOPERATIONS = {")


def seeing(change: str) -> tuple[tuple[str, str], ...]:
    """A writer that sees other words than those of the state when it looks for changes."""
    return (LISTED, SEEN.format(change=change)), (CHUNK, CHUNK.replace("state", "seen"))


AS_FLOATS = (
    "        from tensordelta_conformance.judge.words import equal_as_numbers\n"
    "        same = equal_as_numbers(state[name].dtype, words, base[name].words)\n"
    "        words[same] = base[name].words[same]\n"
)

ALTERED = [
    altered("compares floats", "WRD-002", "write-minus-zero-* write-nan-payloads-*", *seeing(AS_FLOATS)),
    altered(
        "misses the first word",
        "CHK-018",
        "write-the-first-word",
        *seeing("        words[:1] = base[name].words[:1]\n"),
    ),
    altered(
        "misses the last word",
        "CHK-018",
        "write-the-last-word",
        *seeing("        words[-1:] = base[name].words[-1:]\n"),
    ),
    altered(
        "lists words twice", "CHK-018", "write-the-first-word", (f"chunks.append({CHUNK})", f"chunks += [{CHUNK}] * 2")
    ),
    altered(
        "keeps the words of a reshaped tensor",
        "CHK-018",
        "write-tensors-reshaped",
        (
            "base = fit({} if start is None else start[1], state)",
            "base = fit({n: t._replace(shape=state[n].shape) if n in state else t for n, t in start[1].items()}"
            " if start else {}, state)",
        ),
    ),
    altered(
        "keeps the words of a retyped tensor",
        "CHK-018",
        "write-tensors-retyped",
        (
            "base = fit({} if start is None else start[1], state)",
            "base = fit({n: t._replace(dtype=state[n].dtype) if n in state else t for n, t in start[1].items()}"
            " if start else {}, state)",
        ),
    ),
    altered(
        "compares with the version before the last",
        "",
        "write-words-that-change-back write-the-step-before-the-last",
        (START, "start = older[-1], state_of(root, older[-2:][0])"),
    ),
    altered(
        "names the first version as base",
        "RET-015",
        "write-1-percent",
        (START, "start = older[0], state_of(root, older[0])"),
    ),
    altered(
        "moves its snapshot before the commit",
        "",
        "write-over-a-second-writer",
        SNAPSHOTS,
        (
            START,
            "start = older[-1], SNAPSHOTS.get((root, older[-1])) or state_of(root, older[-1])\n"
            "    SNAPSHOTS[root, number] = state",
        ),
    ),
    altered(
        "takes what it published last for the newest version",
        "",
        "write-after-words-of-a-second-writer write-after-a-restart-onto-another-version",
        SNAPSHOTS,
        (START, "start = older[-1], SNAPSHOTS.get(root) or state_of(root, older[-1])\n    SNAPSHOTS[root] = state"),
    ),
    altered(
        "describes the base as it likes",
        "MAN-008",
        "write-the-first-word write-after-gap",
        (
            "builder.manifests[start[0]] = document(root, manifest_name(start[0]))",
            "builder.manifests[start[0]] = {**document(root, manifest_name(start[0])), 'fingerprint': '0' * 16}",
        ),
    ),
    altered(
        "describes the base's layout as it would write it",
        "MAN-008",
        "write-after-another-layout-text",
        (
            "builder.manifests[start[0]] = document(root, manifest_name(start[0]))",
            "layout = builder.layout(start[1])\n"
            "        builder.manifests[start[0]] = {**document(root, manifest_name(start[0])), 'layout': layout}",
        ),
    ),
    altered(
        "normalises zeros before it publishes",
        "FPR-007",
        "write-minus-zero-bf16 write-minus-zero-f32",
        (
            "    check_state(state)\n",
            "    check_state(state)\n"
            "    for name, each in state.items():\n"
            "        zero = 1 << (8 * each.words.itemsize - 1)\n"
            "        each.words[each.words == zero] = 0\n",
        ),
    ),
    altered(
        "gives a chunk another sum",
        "CHK-025",
        "write-the-first-word write-steps-that-carry-between-lanes",
        (
            "    layout = layout or builder.layout(state)\n",
            "    layout = layout or builder.layout(state)\n"
            "    for each in chunks:\n"
            "        each.entry['result'] = '0' * 16\n",
        ),
    ),
    altered(
        "writes frames with a dictionary id",
        "ZST-012",
        "write-the-first-word",
        (
            "from generate.codecs import chunk_for\n",
            "from generate.codecs import chunk_for\nfrom generate.frames import frame\n",
        ),
        (CHUNK, CHUNK.replace("**how", "compression='zstd', frames=lambda data: frame(data, dictionary=1), **how")),
    ),
    altered(
        "pads headers with newlines",
        "PCK-007",
        "write-a-full-version",
        ("[of_chunks(chunks, layout)]", "[of_chunks(chunks, layout, pad=b'\\n\\n')]"),
    ),
    altered(
        "names packs as it likes",
        "PTH-006",
        "write-a-full-version",
        ("[of_chunks(chunks, layout)]", "[of_chunks(chunks, layout, fields={'path': f'packs/{version}'})]"),
    ),
    altered(
        "names files as it likes",
        "PTH-007",
        "write-files",
        (
            "entries = [builder.file(each, data) for each, data in files.items()]",
            "entries = [{**builder.file(each, data), 'path': f'files/{version}'} for version, (each, data) in"
            " enumerate(files.items())]",
        ),
    ),
    altered(
        "lists no features",
        "VER-004",
        "write-exponent-order-bf16 write-exponent-order-f8-e5m2",
        ('features = ["exponent-order"] if', "features = [] if"),
    ),
    altered(
        "writes a later version",
        "VER-005",
        "write-a-full-version",
        ("    builder = Builder(salt", "    builder = Builder(version='1.1', salt"),
    ),
    altered(
        "writes over a version",
        "OBJ-003",
        "write-over-another-state write-over-other-files",
        (
            "    return create(root / name, builder.objects[name])",
            "    put(root / name, builder.objects[name])\n    return True",
        ),
    ),
    altered(
        "takes any version for its own",
        "WRT-006",
        "write-over-another-state write-over-other-files write-over-another-layout",
        (
            '"not signed")\n        other = document(root, name)\n        for member in'
            ' ("layout", "fingerprint", "base"):\n            need(other[member] == mine[member], "conflict",'
            ' f"another {member}")\n        need(',
            '"not signed")\n        other = document(root, name)\n        need(other or ',
        ),
    ),
    altered(
        "takes no version for its own",
        "",
        "write-the-same-again write-the-first-version-again write-the-same-again-with-other-annotations",
        (
            '        need(file_set(other) == file_set(mine), "conflict", "other files")',
            '        need(False, "conflict", "other files")',
        ),
    ),
    altered(
        "fills gaps in the numbers",
        "OBJ-014",
        "write-a-number-in-a-gap",
        ('need(not existing or number > existing[-1], "conflict", "the number is not the greatest")', "pass"),
    ),
    altered(
        "counts versions",
        "",
        "write-a-number-after-a-gap",
        ("max([-1, *existing, *floor]) + 1", "len(existing)"),
    ),
    altered(
        "has no limit to annotations",
        "LIM-006",
        "write-too-many-annotations write-too-long-annotations",
        ("    check_annotations(notes)\n", ""),
    ),
    altered(
        "has no limit to layouts",
        "LIM-006",
        "write-a-name-too-long write-seventeen-dimensions write-too-many-elements",
        ("    check_state(state)\n", ""),
    ),
    altered("takes any name of a file", "WRT-004", "write-file-name-*", ("    check_names(list(files))\n", "")),
    altered(
        "says that it has published",
        "ERR-004",
        "write-a-full-version",
        ("    return create(root / name, builder.objects[name])", "    return True"),
    ),
    altered(
        "leaves out the sums of tensors that it names",
        "OBJ-012",
        "write-a-full-version",
        ("        if other != name:\n", "        if other != name and not other.startswith('fingerprints/'):\n"),
    ),
    altered(
        "takes the same salt again",
        "RET-012",
        "write-a-file-that-lies-there",
        ("Builder(salt=uuid.uuid4().hex)", "Builder()"),
    ),
    altered(
        "tidies up",
        "OBJ-003",
        "write-after-odd-names",
        (
            "    existing = versions(root)\n    floor",
            "    for path in root.rglob('*.*'):\n"
            "        if path.name in ('README.md', 'old.json'):\n"
            "            path.unlink()\n"
            "    existing = versions(root)\n    floor",
        ),
    ),
    altered(
        "trusts the hint",
        "",
        "write-after-a-hint-too-low",
        (
            "    older = [each for each in existing if",
            "    older = [each for each in floor or existing if",
        ),
    ),
    altered("loses annotations", "ADAPTER.md", "write-annotations", ("        annotations=notes,\n", "")),
    altered(
        "publishes under another number",
        "ADAPTER.md",
        "write-numbers-with-gaps",
        ('number = request.get("version", max', 'number = request.get("number", max'),
    ),
    altered(
        "gives a shortcut another sum",
        "MAN-027",
        "shortcut-over-two-versions shortcut-from-nothing",
        (
            'edge(root, start, state_of(root, to), to, order, "step", tag, layout)',
            'edge(root, start, state_of(root, to), to, order, "step", tag, layout, fingerprint="0" * 16)',
        ),
    ),
    altered(
        "makes a shortcut from the version before",
        "",
        "shortcut-over-two-versions shortcut-over-words-that-return",
        (
            "start = None if base is None else (base, state_of(root, base))",
            "start = None if base is None else (base, state_of(root, existing[existing.index(to) - 1]))",
        ),
    ),
    altered(
        "writes the layout of a shortcut anew",
        "MAN-027",
        "shortcut-after-another-layout-text",
        ('to, order, "step", tag, layout)', 'to, order, "step", tag)'),
    ),
    altered(
        "makes shortcuts from another version",
        "",
        "shortcut-from-no-version",
        (
            'need(to in existing and (base is None or base in existing), "missing", "no such version")',
            "base = base if base in existing else existing[0]",
        ),
    ),
    altered(
        "writes over a shortcut",
        "OBJ-003",
        "shortcut-where-another-stands",
        (
            "    return create(root / name, builder.objects[name])",
            "    put(root / name, builder.objects[name])\n    return True",
        ),
    ),
    altered(
        "collects the bases",
        "RET-001",
        "collect-around-one-in-the-middle collect-all-but-the-newest",
        ("        kept |= route(chain, version)\n", "        kept |= {manifest_name(version)}\n"),
    ),
    altered(
        "collects young objects",
        "RET-011",
        "collect-twice-within-the-grace-period",
        ("not in digests and name in old:", "not in digests:"),
        (" for name in copies if name not in old}", " for name in copies if False}"),
    ),
    altered(
        "does not copy what it drops",
        "RET-011",
        "collect-within-the-grace-period",
        ("            retire(root, name, grace)\n", ""),
    ),
    altered(
        "drops the newest version",
        "RET-016",
        "collect-the-newest-and-go-on",
        (", *snapshot.versions()[-1:]}", "}"),
    ),
    altered(
        "collects signatures",
        "RET-011",
        "collect-a-signed-chain",
        (" and name[11:75] not in digests", ""),
        ("sweep(root, grace)\n    return", "sweep(root, 0)\n    return"),
    ),
    altered(
        "does not look for pins",
        "RET-007",
        "collect-with-a-pin-for-* collect-with-a-pin-beside-others collect-with-a-pin-that-came-since",
        ('{*request["keep"], *pinned(chain, snapshot, grace), *snapshot', '{*request["keep"], *snapshot'),
    ),
    altered(
        "takes seconds for milliseconds",
        "RET-007",
        "collect-with-a-pin-for-a-week",
        ("age < seconds", "age < 0"),
    ),
    altered(
        "passes over pins that break a rule",
        "RET-018",
        "collect-with-a-pin-with-null collect-with-a-pin-that-is-* collect-with-a-pin-of-format-2",
        ("            if age < grace:\n                raise\n", ""),
    ),
    altered(
        "reports a pin that breaks a rule after it has collected",
        "RET-018",
        "collect-with-a-pin-that-is-no-json",
        ('{*request["keep"], *pinned(chain, snapshot, grace), *snapshot', '{*request["keep"], *snapshot'),
        ("    return {}\n\n\ndef retire", "    pinned(chain, snapshot, grace)\n    return {}\n\n\ndef retire"),
    ),
    altered(
        "collects files",
        "RET-011",
        "collect-nothing",
        ('manifest.get("files", [])}\n        if', "[]}\n        if"),
    ),
    altered(
        "collects versions that are to be kept",
        "ADAPTER.md",
        "collect-around-one-in-the-middle",
        ('{*request["keep"], *pinned', '{*request["keep"][1:], *pinned'),
    ),
    altered(
        "signs other bytes",
        "WRT-004",
        "sign-versions",
        ("bytes.fromhex(key), message)", "bytes.fromhex(key), message + b'\\n')"),
    ),
    altered(
        "signs the bytes without the name",
        "WRT-004",
        "sign-versions",
        ("bytes.fromhex(key), message)", "bytes.fromhex(key), data)"),
    ),
    altered(
        "does not sign the chain",
        "SIG-010",
        "sign-versions",
        ('        sign(root, "chain.json", chain, key)\n', ""),
    ),
    altered(
        "builds on what is not signed",
        "SIG-013",
        "sign-past-an-unsigned-version",
        (" and is_signed(root, manifest_name(each), key)]", "]"),
    ),
    altered(
        "takes what is not signed for its own",
        "SIG-013",
        "sign-what-was-there-unsigned",
        ('        need(is_signed(root, name, key), "untrusted", "not signed")\n', ""),
    ),
]

#: Faults that only kills and races show.
IN_PROCESSES = [
    altered(
        "creates the manifest first",
        "OBJ-012",
        "write-killed-in-a-delta",
        (
            "    for other, data in builder.objects.items():\n        if other",
            "    free = create(root / name, builder.objects[name])\n"
            "    time.sleep(0.2)\n"
            "    for other, data in builder.objects.items():\n"
            "        if other",
        ),
        ("    return create(root / name, builder.objects[name])", "    return free"),
    ),
    altered(
        "signs the manifest after it created it",
        "SIG-010",
        "sign-killed",
        (
            "    sign(root, name, builder.objects[name], key)\n    return create(root / name, builder.objects[name])",
            "    free = create(root / name, builder.objects[name])\n    time.sleep(0.2)\n"
            "    sign(root, name, builder.objects[name], key)\n    return free",
        ),
    ),
    altered(
        "deletes packs before manifests",
        "RET-011",
        "collect-killed",
        (
            "    for name in sorted(edges",
            "    for name in edges:\n        if name not in stay:\n"
            "            for each in document(root, name)['packs']:\n"
            "                (root / each['path']).unlink(missing_ok=True)\n"
            "    time.sleep(0.2)\n    for name in sorted(edges",
        ),
    ),
    altered(
        "copies what it has dropped",
        "RET-011",
        "collect-killed-within-the-grace-period",
        (
            "            retire(root, name, grace)\n            (root / name).unlink()\n",
            "            data = (root / name).read_bytes()\n            (root / name).unlink()\n"
            "            time.sleep(0.1)\n            put(root / f'retired/{name}', data)\n",
        ),
    ),
    altered(
        "looks before it creates",
        "",
        "write-a-delta-at-once",
        (
            '    temporary = path.parent / f".tmp-{uuid.uuid4().hex}"\n    temporary.write_bytes(data)\n    try:\n'
            "        os.link(temporary, path)\n    except FileExistsError:\n        return False\n"
            "    finally:\n        temporary.unlink()\n    return True",
            "    if path.exists():\n        return False\n    time.sleep(0.5)\n    put(path, data)\n    return True",
        ),
    ),
]


@pytest.mark.parametrize("each", ALTERED, ids=lambda each: each.name.replace(" ", "-"))
def test_a_fault_is_found(each: Altered, suite: Suite) -> None:
    for pattern in each.cases:
        report = run_handler(loaded(each.text()), suite=suite, only=[pattern])
        failed = [check for check in report.checks if check.status == "fail"]
        assert failed, pattern
        assert [check for check in report.checks if check.status == "error"] == []
        shown = [f"{' '.join(check.broken)} {check.got}" for check in failed]
        assert any(each.broken in text for text in shown), shown


@pytest.mark.slow
@pytest.mark.parametrize("each", IN_PROCESSES, ids=lambda each: each.name.replace(" ", "-"))
def test_a_fault_that_a_kill_or_a_race_shows_is_found(each: Altered, suite: Suite, tmp_path: Path) -> None:
    path = tmp_path / "writer.py"
    path.write_text(each.text(), encoding="utf-8")
    report = run(program(path), suite=suite, only=each.cases)
    (check,) = report.checks
    assert check.status == "fail", check
    assert not each.broken or each.broken in check.broken, check
