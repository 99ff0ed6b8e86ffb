"""Every error: each broken chain is refused under its name, and what a reader holds stays as it was."""

from __future__ import annotations

import copy
import pickle
import re
import subprocess
import sys
from pathlib import Path

import gallery
import pytest
from gallery import BROKEN, Broken, as_state, open_chain

import tensordelta as td
from tensordelta.state.state import State

ROOT = Path(__file__).parents[1]
READER = [each for each in BROKEN if each.reader]


def requirement_ids() -> set[str]:
    return set(re.findall(r"^- \[(TD-[A-Z]{3}-[0-9]{3})\]", (ROOT / "SPEC.md").read_text(), re.MULTILINE))


REQUIREMENTS = requirement_ids()


def assert_named(error: td.TensorDeltaError, fault: Broken) -> None:
    assert error.name in fault.errors, str(error)
    assert type(error) is td.ERRORS[error.name]
    assert error.rule in REQUIREMENTS, f"{error.rule} is no requirement of SPEC.md"
    assert error.rule in fault.rules, str(error)
    assert error.object and error.reason and error.advice
    assert all(part in str(error) for part in (error.name, error.object, error.rule, error.reason, error.advice))


@pytest.mark.parametrize("fault", READER, ids=lambda each: each.name)
def test_a_broken_chain_is_refused_by_name(fault: Broken) -> None:
    """From nothing, and with a version held in a state and in arrays, neither of which is touched."""
    builder = fault.builder
    with pytest.raises(td.TensorDeltaError) as caught:
        open_chain(builder).load(fault.version)
    assert_named(caught.value, fault)
    if fault.held is None:
        return
    state = as_state(builder.models[fault.held])
    state.sums()
    state.version, state.chain = fault.held, gallery.CHAIN
    arrays = {name: array.copy() for name, array in state.items()}
    before, held = copy.deepcopy(arrays), state.copy()
    for each in (state, arrays):
        with pytest.raises(td.TensorDeltaError) as caught:
            open_chain(builder).prepare(each, fault.version)
        assert_named(caught.value, fault)
    assert state.equals(held) and state.version == held.version
    assert arrays.keys() == before.keys() and all(arrays[name].tobytes() == before[name].tobytes() for name in arrays)


@pytest.mark.parametrize("name", ["packs", "manifests"])
def test_a_link_out_of_the_root_is_not_followed(name: str, tmp_path: Path) -> None:
    builder = gallery.standard(last=False)
    path = builder.write(tmp_path / "chain") / (
        builder.pack_names(1)[0] if name == "packs" else gallery.manifest_name(1)
    )
    path.rename(tmp_path / "outside")
    path.symlink_to("../../outside")
    with pytest.raises(td.UntrustedError) as caught:
        td.open(tmp_path / "chain", threads=1).load(1)
    assert caught.value.rule == "TD-STO-006" and caught.value.object == str(path.relative_to(tmp_path / "chain"))
    assert {each.name for each in td.open(tmp_path / "chain").verify().faults} == {"untrusted"}


def test_a_link_within_the_root_is_followed(tmp_path: Path) -> None:
    builder = gallery.standard()
    folder = builder.write(tmp_path / "chain")
    pack = folder / builder.pack_names(1)[0]
    pack.rename(folder / "elsewhere")
    pack.symlink_to("../elsewhere")
    (tmp_path / "link").symlink_to("chain")
    assert td.open(tmp_path / "link", threads=1).load(1).equals(as_state(builder.models[1]))


def test_there_are_faults_of_every_name() -> None:
    """But of those that depend on what a reader holds, or that its user allows."""
    names = {name for fault in BROKEN for name in fault.errors}
    assert names == set(td.ERRORS) - {"wrong-base", "untrusted"}
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
    for name in ("newest-manifest-unreadable", "pack-altered", "json-truncated", "feature-unknown"):
        builder = gallery.broken_chain(name)
        assert open_chain(builder).load(0).equals(as_state(builder.models[0]))
    chain = open_chain(gallery.broken_chain("newest-manifest-unreadable"))
    assert chain.newest() == 3
    assert chain.load(2).equals(as_state(gallery.standard().models[2]))


def test_one_tensor_of_a_broken_version_is_refused_too() -> None:
    """Reading a part proves the part: no fault of the streams gets through."""
    faults = [each for each in READER if each.area in {"chunks", "order", "positions", "values", "frames"}]
    assert len(faults) > 100
    for fault in faults:
        builder = fault.builder
        chain = open_chain(builder)
        for name in builder.models[fault.version]:
            try:
                array = chain.read(fault.version, name)
            except td.TensorDeltaError as error:
                assert error.name in (*fault.errors, "integrity"), (fault.name, str(error))
                continue
            assert array.tobytes() == builder.models[fault.version][name].words.tobytes(), (fault.name, name)


@pytest.mark.parametrize(
    "fault", [each for each in READER if each.area in {"packs", "plain", "frames"}], ids=lambda each: each.name
)
def test_packs_too_large_for_memory_have_the_same_faults(fault: Broken, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tensordelta.read.packs.KEPT", 0)
    with pytest.raises(td.TensorDeltaError) as caught:
        open_chain(fault.builder).load(fault.version)
    assert_named(caught.value, fault)


@pytest.mark.parametrize(
    ("prefix", "limit"), [("chain.json", 1 << 16), ("manifests/000000000001", 1 << 26), ("layouts/", 1 << 28)]
)
def test_objects_beyond_their_limit_are_not_even_read(prefix: str, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    builder = gallery.standard()
    store = gallery.MemoryStore(builder.objects)
    real = store.open

    def opened(name: str) -> gallery.MemoryBlob:
        blob = real(name)
        blob.size = limit + 1 if name.startswith(prefix) else blob.size
        return blob

    monkeypatch.setattr(store, "open", opened)
    with pytest.raises(td.LimitError) as caught:
        td.open(store, threads=1).load(1)
    assert caught.value.rule == "TD-LIM-004"
    assert not any(name.startswith(prefix) for name in store.fetched)


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
    faults = [each for each in READER if "bomb" in each.name or "window" in each.name]
    assert len(faults) >= 8
    folders = [str(each.builder.write(tmp_path / each.name)) for each in faults]
    done = subprocess.run(
        [sys.executable, "-c", _BOMBS, *folders],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT / "reference"), "OPENBLAS_NUM_THREADS": "1"},
        timeout=600,
    )
    *errors, grown = done.stdout.split()
    assert errors == ["malformed"] * len(folders), done.stdout + done.stderr
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
    """A layout of a few bytes asks for 2^51 bytes: in a delta, and in a full version from nothing."""
    model = {"a": gallery.tensor("U8", (2,), 1)}
    folders = []
    for base in (0, None):
        builder = gallery.Builder()
        builder.full(0, model)
        entry = {"name": "z", "dtype": "F64", "shape": [2**48]}
        layout = builder.layout(model, hook=lambda document, entry=entry: document["tensors"].append(entry))
        packs = [] if base == 0 else [gallery.of_chunks(gallery.full_chunks(model), layout)]
        builder.edge(1, model, packs, base=base, layout=layout, fingerprints=False)
        folders.append(str(builder.write(tmp_path / str(base))))
    done = subprocess.run(
        [sys.executable, "-c", _HUGE, *folders],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(ROOT / "reference"), "OPENBLAS_NUM_THREADS": "1"},
        timeout=600,
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

    monkeypatch.setattr(chain.store, "open", fail)
    for read in (lambda: td.open(chain.store, threads=1).load(2), lambda: chain.prepare(state, 2)):
        with pytest.raises(PermissionError) as caught:
            read()
        assert not isinstance(caught.value, td.TensorDeltaError)
    assert isinstance(state, State) and state.equals(as_state(builder.models[0]))


def test_an_update_that_fails_late_leaves_the_state_alone() -> None:
    """The last of several members fails at its last check; the members before it were prepared for nothing."""
    rng = gallery.Random(1)
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
