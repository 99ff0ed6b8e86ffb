"""Every error: each broken chain of the gallery is refused under its name, and what a reader holds stays as it was."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
from pathlib import Path

import gallery
import numpy as np
import pytest
from gallery import BROKEN, Broken, as_state, open_chain

import tensordelta as td
from tensordelta.state import State

ROOT = Path(__file__).parents[1]
READER = [each for each in BROKEN if each.reader]
#: Faults that only a folder can have.
LINKS = {"pack-is-a-link-out-of-the-root", "manifest-is-a-link-out-of-the-root"}


def requirement_ids() -> set[str]:
    return set(re.findall(r"^- \[(TD-[A-Z]{3}-[0-9]{3})\]", (ROOT / "SPEC.md").read_text(), re.MULTILINE))


REQUIREMENTS = requirement_ids()


def assert_named(error: td.TensorDeltaError, fault: Broken) -> None:
    assert error.name in fault.errors, str(error)
    assert type(error) is td.ERRORS[error.name]
    assert error.rule in REQUIREMENTS, f"{error.rule} is no requirement of SPEC.md"
    assert not fault.rules or error.rule in fault.rules, str(error)
    assert error.object and error.reason and error.advice
    assert all(part in str(error) for part in (error.name, error.object, error.rule, error.reason, error.advice))


#: Faults that need objects of some size.
LARGE = {"packs-65537"}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(each, id=each.name, marks=[pytest.mark.slow] if each.name in LARGE else [])
        for each in READER
        if each.name not in LINKS
    ],
)
def test_a_broken_chain_is_refused_by_name(fault: Broken) -> None:
    """From nothing, and with version 0 held in a state and in arrays, neither of which is touched."""
    builder = fault.builder
    with pytest.raises(td.TensorDeltaError) as caught:
        open_chain(builder).load(fault.version)
    assert_named(caught.value, fault)
    if 0 not in builder.models or fault.name in UNOPENED:
        return
    state = as_state(builder.models[0])
    state.sums()
    state.version, state.chain = 0, gallery.CHAIN
    arrays = {name: array.copy() for name, array in state.items()}
    before, held = copy.deepcopy(arrays), state.copy()
    for each in (state, arrays):
        chain = open_chain(builder)
        if fault.name in ENOUGH:
            chain.prepare(each, fault.version)
            continue
        with pytest.raises(td.TensorDeltaError) as caught:
            chain.prepare(each, fault.version)
        assert caught.value.name in (*fault.errors, *WHEN_HELD.get(fault.name, ()))
    assert state.equals(held) and state.version == held.version
    assert arrays.keys() == before.keys() and all(arrays[name].tobytes() == before[name].tobytes() for name in arrays)


#: Faults of version 0: whoever holds it does not meet them.
ENOUGH = {
    "base-manifest-missing",
    "only-a-shortcut-that-disagrees",
    "only-a-shortcut-that-is-malformed",
    "only-a-shortcut-with-an-altered-pack",
    "only-a-shortcut-with-an-unknown-feature",
    "only-a-shortcut-with-another-base",
    "pack-of-a-full-version-missing",
    "pack-of-the-base-missing",
}
#: What a reader that holds version 0 may meet instead: arrays that are no version of another chain.
WHEN_HELD = {"chain-id-replaced": ("wrong-base",)}
#: Faults of chain.json: nothing is opened.
UNOPENED = {each.name for each in READER if each.name.startswith("chain-")} - {"chain-id-replaced"}


@pytest.mark.parametrize("name", sorted(LINKS))
def test_a_link_out_of_the_root_is_not_followed(name: str, tmp_path: Path) -> None:
    fault = next(each for each in BROKEN if each.name == name)
    folder = fault.builder.write(tmp_path / "chain")
    with pytest.raises(td.UntrustedError) as caught:
        td.open(folder, threads=1).load(fault.version)
    assert_named(caught.value, fault)


def test_a_link_within_the_root_is_followed(tmp_path: Path) -> None:
    builder = gallery.standard()
    folder = builder.write(tmp_path / "chain")
    pack = folder / builder.pack_names(1)[0]
    pack.rename(folder / "elsewhere")
    pack.symlink_to("../elsewhere")
    (tmp_path / "link").symlink_to("chain")
    assert td.open(tmp_path / "link", threads=1).load(1).equals(as_state(builder.models[1]))


def test_the_gallery_has_faults_of_every_name() -> None:
    assert {name for fault in BROKEN for name in fault.errors} == set(td.ERRORS)
    assert len({fault.name for fault in BROKEN}) == len(BROKEN) > 400


def test_the_standard_chain_is_good_without_a_fault() -> None:
    """What the faults are made in is a chain that loads, so that each is refused for its fault alone."""
    for how in ({}, {"compression": "zstd"}, {"features": ["exponent-order"]}):
        builder = gallery.standard(**how)
        for version, model in builder.models.items():
            assert open_chain(builder).load(version).equals(as_state(model))
        assert open_chain(builder).verify(deep=True).ok


def test_other_versions_of_a_broken_chain_still_load() -> None:
    """A fault is of the version that has it: one newer version that cannot be read hides no older one."""
    for name in ("newest-manifest-unreadable", "pack-altered", "manifest-truncated", "feature-unknown"):
        builder = gallery.broken_chain(name)
        assert open_chain(builder).load(0).equals(as_state(builder.models[0]))
    chain = open_chain(gallery.broken_chain("newest-manifest-unreadable"))
    assert chain.newest == 3
    assert chain.load(2).equals(as_state(gallery.standard().models[2]))


def test_one_tensor_of_a_broken_version_is_refused_too() -> None:
    """Reading a part proves the part: no fault of the streams gets through."""
    for fault in READER:
        if not re.match(r"(gaps|low|bitmap|codes|values|escape|frame|codec|exponent|position)", fault.name):
            continue
        builder = fault.builder
        chain = open_chain(builder)
        for name in builder.models[1]:
            try:
                array = chain.read(1, name)
            except td.TensorDeltaError as error:
                assert error.name in (*fault.errors, "integrity"), (fault.name, str(error))
                continue
            assert array.tobytes() == builder.models[1][name].words.tobytes(), (fault.name, name)


@pytest.mark.parametrize(
    "name",
    [
        *["pack-0-bytes", "pack-7-bytes", "pack-truncated", "header-longer-than-the-file", "header-length-0"],
        *["buffer-missing-byte", "plain-trailing-bytes", "frame-truncated", "frame-empty", "stream-empty-values"],
    ],
)
def test_packs_too_large_for_memory_have_the_same_faults(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensordelta.reader.KEPT", 0)
    fault = next(each for each in BROKEN if each.name == name)
    with pytest.raises(td.TensorDeltaError) as caught:
        open_chain(fault.builder).load(fault.version)
    assert_named(caught.value, fault)


@pytest.mark.parametrize(
    ("prefix", "limit"), [("chain.json", 1 << 16), ("manifests/000000000001", 1 << 26), ("layouts/", 1 << 28)]
)
def test_objects_beyond_their_limit_are_not_even_read(prefix: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = gallery.standard()
    store = gallery.MemoryStore(builder.objects)
    real = store.size
    for size, refused in ((limit, False), (limit + 1, True)):
        monkeypatch.setattr(store, "size", lambda name, size=size: size if name.startswith(prefix) else real(name))
        store.reads.clear()
        try:
            td.open(store, threads=1).load(1)
            assert not refused
        except td.LimitError as error:
            assert refused and error.rule == "TD-LIM-004"
            assert not any(name.startswith(prefix) for name in store.reads)


_BOMBS = """
import resource, sys
import tensordelta as td
td.open(sys.argv[1], threads=1, memory=1 << 30).load(0)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for folder in sys.argv[1:]:
    try:
        td.open(folder, threads=1, memory=1 << 30).load(1)
        print("accepted", folder)
    except td.TensorDeltaError as error:
        print(error.name, end=" ")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_bombs_do_not_go_off(tmp_path: Path) -> None:
    """Frames of a few kilobytes that decode to 128 MiB cost a reader next to no memory."""
    names = [each.name for each in READER if each.name.startswith(("frame-bomb", "frame-size", "frame-window"))]
    assert len(names) >= 8
    folders = [str(gallery.broken_chain(name).write(tmp_path / name)) for name in names]
    done = subprocess.run(
        [sys.executable, "-c", _BOMBS, *folders],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT / "reference"), "OPENBLAS_NUM_THREADS": "1"},
        timeout=120,
    )
    *errors, grown = done.stdout.split()
    assert errors == ["malformed"] * len(names), done.stdout + done.stderr
    assert int(grown) < 32 << 10, f"{grown} KiB"


_HUGE = """
import resource, sys
import tensordelta as td
limit = 6 << 30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
for folder in sys.argv[1:]:
    for memory in (1 << 30, 1 << 60):
        try:
            td.open(folder, threads=1, memory=memory).load(1)
        except (td.TensorDeltaError, MemoryError) as error:
            print(getattr(error, "name", "MemoryError"), end=" ")
"""


def test_a_layout_beyond_memory_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    names = ["layout-beyond-any-memory", "full-version-beyond-any-memory"]
    folders = [str(gallery.broken_chain(name).write(tmp_path / name)) for name in names]
    done = subprocess.run(
        [sys.executable, "-c", _HUGE, *folders],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT / "reference"), "OPENBLAS_NUM_THREADS": "1"},
        timeout=120,
    )
    words = done.stdout.split()
    assert words[0] == words[2] == "limit", done.stdout + done.stderr
    # With a budget that no machine has, what the operating system says is what the user hears.
    assert set(words) <= {"limit", "MemoryError"} and len(words) == 4


# -- the errors themselves ------------------------------------------------------------------------------------------


def test_the_set_is_the_one_of_the_specification() -> None:
    text = (ROOT / "SPEC.md").read_text()
    section = text[text.index("\n## 17 Errors") : text.index("\n## 18 ")]
    assert re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE) == list(td.ERRORS)
    assert all(kind.name == name and issubclass(kind, td.TensorDeltaError) for name, kind in td.ERRORS.items())


def test_rules_named_in_the_package_are_requirements() -> None:
    named = {
        rule: path.name
        for path in (ROOT / "reference" / "tensordelta").rglob("*.py")
        for rule in re.findall(r"\"(TD-[A-Z]{3}-[0-9]{3})\"", path.read_text())
    }
    assert len(named) > 50
    assert {rule: file for rule, file in named.items() if rule not in REQUIREMENTS} == {}


@pytest.mark.parametrize("name", list(td.ERRORS))
def test_errors_travel_between_processes(name: str) -> None:
    kind = td.ERRORS[name]
    error = kind("is wrong", object="packs/x", rule="TD-CHK-004", advice="Do this.")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is kind and vars(again) == vars(error) and str(again) == str(error)
    assert kind("is wrong", object="x", rule="TD-CHK-004").advice, "an error says what to do"


def test_errors_are_also_what_python_programs_expect() -> None:
    assert issubclass(td.MalformedError, ValueError) and issubclass(td.IntegrityError, ValueError)
    assert issubclass(td.MissingError, LookupError) and issubclass(td.UntrustedError, PermissionError)


def test_a_failure_of_the_store_is_no_fault_of_the_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    """No permission, no network: told as it is, and not taken for an object that does not exist (TD-STO-003)."""
    builder = gallery.standard()
    builder.full(2, builder.models[2], shortcut="")
    chain = open_chain(builder)
    state = chain.load(0)

    def fail(name: str) -> None:
        raise PermissionError(13, "no permission", name)

    for method in ("open", "read"):
        with monkeypatch.context() as patch:
            patch.setattr(chain.store, method, fail)
            with pytest.raises(PermissionError) as caught:
                td.open(chain.store, threads=1).load(2) if method == "read" else chain.prepare(state, 2)
            assert not isinstance(caught.value, td.TensorDeltaError)
    assert isinstance(state, State) and state.equals(as_state(builder.models[0]))


def test_an_update_that_fails_late_leaves_the_state_alone() -> None:
    """The last of several members fails at its last check; the members before it were prepared for nothing."""
    rng = np.random.default_rng(1)
    builder = gallery.standard(last=False)
    models = [builder.models[1], gallery.stepped(rng, builder.models[1])]
    builder.delta(2, models[1], 1)
    wrong = gallery.stepped(rng, models[1])
    builder.delta(3, wrong, 2, hook=gallery.setting(fingerprint="0123456789abcdef"))
    chain = open_chain(builder)
    state = chain.load(0)
    with pytest.raises(td.IntegrityError) as caught:
        chain.prepare(state, 3)
    assert caught.value.rule == "TD-RDR-007" and caught.value.object == gallery.manifest_name(3)
    assert state.equals(as_state(builder.models[0])) and state.version == 0
    chain.prepare(state, 2).apply()
    assert state.equals(as_state(models[1]))
