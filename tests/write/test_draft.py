"""Drafts: many writers of one version, whatever shards they hold, and everything that keeps a wrong one out."""

from __future__ import annotations

import copy
import json
import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import slow_reader
from draft_ranks import cut, model, rank_main, rows
from hypothesis import given
from hypothesis import strategies as st
from strategies import MemoryStore, Pair, examples, generators, pairs, slow

import tensordelta as td
from tensordelta.write import draft as drafts
from tensordelta.write.keys import secret_key
from tensordelta.write.snapshot import snapshot_folder

Descriptors = list[dict[str, Any]]

OLD = {
    "a": np.arange(1, 41, dtype=np.float32).reshape(8, 5),
    "b": np.arange(30, dtype=np.uint8),
    "c": np.full(6, 2, ml_dtypes.bfloat16),
}
NEW = {"a": OLD["a"] + (OLD["a"] % 3 == 0), "b": OLD["b"].copy(), "c": np.full(6, 3, ml_dtypes.bfloat16)}


@pytest.fixture
def chain(tmp_path: Path) -> td.Chain:
    """A chain with one version, published by one writer."""
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    chain.publish(OLD)
    return chain


def encoded(
    chain: td.Chain, draft: td.Draft, new: dict[str, np.ndarray], base: dict[str, np.ndarray] | None = None, **more: Any
) -> Descriptors:
    """What three ranks say that hold rows of each tensor; each joins on its own."""
    return [
        td.open(chain.address, threads=1)
        .join(draft.to_json())
        .encode(rows(new, rank, 3), None if base is None else rows(base, rank, 3), **more)
        for rank in range(3)
    ]


def equal(state: td.State, arrays: dict[str, np.ndarray]) -> bool:
    return state.equals(td.State.from_arrays(arrays))


# -- what ranks make ---------------------------------------------------------------------------------------------------


@given(pairs(), generators, st.integers(1, 5), st.sampled_from([{}, {"order": "exponent"}, {"values": "replace"}]))
@examples(60)
def test_any_shards_make_the_version(pair: Pair, rng: np.random.Generator, ranks: int, options: dict[str, Any]) -> None:
    """However words are cut: readers get the state, and the version is the one that a single writer makes."""
    store, single = MemoryStore(), MemoryStore()
    chain, other = td.open(store, create=True, threads=1), td.open(single, create=True, threads=1)
    opened = chain.draft(pair.old)
    joined = [td.open(store, threads=1).join(opened.to_json()) for _ in range(ranks)]
    opened.commit([each.encode(shard) for each, shard in zip(joined, cut(pair.old, ranks, rng), strict=True)])
    opened = chain.draft(pair.new, layout_change=True)
    joined = [td.open(store, threads=1).join(opened.to_json()) for _ in range(ranks)]
    # What each rank holds of the base is cut otherwise: at least its own words, here all of them in pieces.
    base = cut(pair.old, 1, rng)[0]
    found = [each.encode(shard, base, **options) for each, shard in zip(joined, cut(pair.new, ranks, rng), strict=True)]
    rng.shuffle(found)
    done = opened.commit(json.loads(json.dumps(found)))

    assert (done.version, done.base) == (1, 0)
    assert slow_reader.read_version(store, 0) == slow(pair.old)
    assert slow_reader.read_version(store, 1) == slow(pair.new)
    assert chain.load(1).equals(pair.new) and chain.verify(deep=True).ok
    other.publish(pair.old)
    other.publish(pair.new, layout_change=True, **options)
    mine, theirs = chain.manifest(1), other.manifest(1)
    assert mine.same_version(theirs)
    assert chain.tensor_fingerprints(1).tolist() == other.tensor_fingerprints(1).tolist()


def test_a_full_version_of_a_chain_that_has_one(chain: td.Chain) -> None:
    draft = chain.draft(full=True)
    assert (draft.version, draft.base, draft.layout) == (1, None, chain.layout())
    draft.commit(encoded(chain, draft, NEW))
    assert chain.plan(1).edges[0].base is None and equal(chain.load(), NEW)


def test_ways_to_tell_a_layout(chain: td.Chain) -> None:
    pairs_of = {"a": ("F32", (8, 5)), "b": (np.uint8, (30,)), "c": ("BF16", [6])}
    unsorted = td.Layout(chain.layout().tensors[::-1])
    for each in (None, OLD, td.State.from_arrays(OLD), chain.layout(), unsorted, pairs_of):
        draft = chain.draft(each)
        assert draft.layout == chain.layout()
        # The layout that the base has is in the store, and need not travel.
        assert "tensors" not in json.loads(draft.to_json())
    with pytest.raises(ValueError, match="float8"):
        chain.draft({"a": (np.float128, (3,))})
    with pytest.raises(td.MalformedError):
        chain.draft({"": ("F32", (3,))})


def test_a_chain_without_versions_needs_a_layout(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    with pytest.raises(ValueError, match="layout"):
        chain.draft()
    draft = chain.draft({"w": ("F32", (2, 2))}, version=7)
    assert (draft.version, draft.base) == (7, None)
    assert json.loads(draft.to_json())["tensors"] == [{"name": "w", "dtype": "F32", "shape": [2, 2]}]


def test_halves_of_two_tensors(chain: td.Chain) -> None:
    """Slices touch where one ends and the other begins only if they are of one tensor."""
    a, b = np.arange(1, 21, dtype=np.float32), np.arange(31, 51, dtype=np.float32)
    draft = chain.draft({"a": a, "b": b}, layout_change=True)
    one = draft.encode({"a": td.Slice(a[:10], 0), "b": td.Slice(b[10:], 10)})
    two = draft.encode({"a": [td.Slice(a[15:], 15), td.Slice(a[10:15], 10)], "b": td.Slice(b[:10], 0)})
    assert [each[:3] for each in one["slices"]] == [[0, 0, 10], [1, 10, 20]]
    assert [each[:3] for each in two["slices"]] == [[0, 10, 20], [1, 0, 10]]
    draft.commit([two, one])
    assert equal(chain.load(), {"a": a, "b": b})


def test_annotations_and_files(chain: td.Chain) -> None:
    draft = chain.draft()
    done = draft.commit(encoded(chain, draft, NEW, OLD), annotations={"step": 1}, files={"config.json": b"{}"})
    assert done.annotations == {"step": "1"}
    draft = chain.draft()
    draft.commit(encoded(chain, draft, OLD, NEW))
    assert [file.name for file in chain.manifest().files] == ["config.json"]
    assert equal(chain.load(), OLD) and chain.verify(deep=True).ok


def test_words_as_unsigned_integers(chain: td.Chain) -> None:
    """How a bfloat16 tensor comes from a library whose arrays numpy does not know."""
    draft = chain.draft()
    new = {**NEW, "c": NEW["c"].view(np.uint16)}
    draft.commit(encoded(chain, draft, new, {**OLD, "c": OLD["c"].view(np.uint16)}))
    assert equal(chain.load(), NEW)


def test_nothing_is_kept_on_this_machine(chain: td.Chain) -> None:
    """No one here has the whole state: the writer's snapshot of whole states stays where it was, and still serves."""
    before = {path: path.stat().st_mtime_ns for path in snapshot_folder(chain.id).rglob("*")}
    draft = chain.draft()
    draft.commit(encoded(chain, draft, NEW, OLD))
    assert {path: path.stat().st_mtime_ns for path in snapshot_folder(chain.id).rglob("*")} == before
    assert chain.publish(OLD).base == 1
    assert equal(chain.load(), OLD)


def test_packs_of_a_rank_are_cut_by_tensors(chain: td.Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drafts, "_PACK", 1)
    new = {f"w{index}": np.full((4, 4), 1.5 + index, np.float32) for index in range(6)}
    monkeypatch.setattr("tensordelta.write.gathering._LISTED_DENSE", 4)
    draft = chain.draft(new, layout_change=True)
    draft.commit(encoded(chain, draft, new))
    packs = chain.manifest().packs
    assert len(packs) > 6 and all(stop - first == 1 for pack in packs for first, stop in pack.tensors)
    assert equal(chain.load(), new)


def test_the_base_has_no_fingerprints_of_tensors(chain: td.Chain) -> None:
    """They are a SHOULD; then the sum of all tells a wrong base, as long as no tensor goes."""
    manifest = Path(chain.address, "manifests", "000000000000.json")
    document = json.loads(manifest.read_text())
    del document["tensor_fingerprints"]
    manifest.write_text(json.dumps(document))
    chain = td.open(chain.address, threads=1)
    more = {**NEW, "d": np.ones(4, np.float32)}
    draft = chain.draft(more, layout_change=True)
    with pytest.raises(td.WrongBaseError, match="some tensor"):
        draft.commit(encoded(chain, draft, more, {**OLD, "b": OLD["b"] + np.uint8(1)}))
    draft.commit(encoded(chain, draft, more, OLD))
    assert equal(chain.load(), more)
    manifest.unlink()
    manifest = Path(chain.address, "manifests", "000000000001.json")
    document = json.loads(manifest.read_text())
    del document["tensor_fingerprints"]
    manifest.write_text(json.dumps(document))
    with pytest.raises(td.UnsupportedError) as caught:
        td.open(chain.address).draft(OLD, layout_change=True)
    assert caught.value.rule == "TD-FPR-004" and caught.value.object == "manifests/000000000001.json"
    assert td.open(chain.address).draft(OLD, full=True, layout_change=True).base is None


# -- what ranks may not do ---------------------------------------------------------------------------------------------


def shift(new: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.roll(array, 1) for name, array in new.items()}


@pytest.mark.parametrize(
    ("shard", "base", "what"),
    [
        ({"x": NEW["a"]}, OLD, "no tensor 'x'"),
        ({"a": NEW["a"].T}, OLD, r"\[5, 8\]; a part is a Slice"),
        ({"a": NEW["a"].reshape(-1)}, OLD, "a part is a Slice"),
        ({"a": NEW["a"].astype(np.float64)}, OLD, "tensor 'a' is F32, the array float64"),
        ({"a": NEW["a"].view(np.int32)}, OLD, "tensor 'a' is F32, the array int32"),
        ({"a": td.Slice(NEW["a"], 1)}, OLD, "words 1 to 40 of tensor 'a', which has 40"),
        ({"a": td.Slice(NEW["a"][:1], -1)}, OLD, "words -1 to 3"),
        ({"b": [td.Slice(NEW["b"][:9], 0), td.Slice(NEW["b"][8:], 8)]}, OLD, "word 8 of tensor 'b' is named twice"),
        ({"a": NEW["a"]}, None, "base_shard lacks word 0 of tensor 'a', which version 0 has"),
        ({"a": NEW["a"]}, {"a": td.Slice(OLD["a"][1:], 5)}, "lacks word 0 "),
        ({"a": NEW["a"]}, {"a": [td.Slice(OLD["a"][:2], 0), td.Slice(OLD["a"][3:], 15)]}, "lacks word 10 "),
        ({"a": td.Slice(NEW["a"][2:4], 10)}, {"a": td.Slice(OLD["a"][:3], 0)}, "lacks word 15 "),
        ({"a": NEW["a"]}, {"a": OLD["a"].astype(np.float16)}, "the array float16"),
    ],
)
def test_shards_that_are_none(chain: td.Chain, shard: Any, base: Any, what: str) -> None:
    """They are refused before anything is put."""
    before = sorted(Path(chain.address).rglob("*"))
    with pytest.raises(ValueError, match=what):
        chain.draft().encode(shard, base)
    assert sorted(Path(chain.address).rglob("*")) == before


@pytest.mark.parametrize("wrong", [{"order": "exp"}, {"order": "exponent", "values": "replace"}])
def test_codecs_that_are_none(chain: td.Chain, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not one of|natural order only"):
        chain.draft().encode({}, {}, **wrong)


def drop(found: Descriptors) -> None:
    del found[1]


def drop_last(found: Descriptors) -> None:
    del found[2]


def claim_twice(found: Descriptors) -> None:
    """A tensor that two ranks hold, and both name."""
    found[2]["slices"].insert(0, found[0]["slices"][0])


def reach_over(found: Descriptors) -> None:
    found[1]["slices"][1][1] -= 1


def leave_out(found: Descriptors) -> None:
    found[1]["slices"][1][1] += 1


def pass_the_end(found: Descriptors) -> None:
    found[2]["slices"][-1][2] += 1


def no_such_tensor(found: Descriptors) -> None:
    found[2]["slices"].append([3, 0, 1, "0" * 16])


def foreign_pack(found: Descriptors) -> None:
    """A rank's packs list words of a tensor that it does not own."""
    found[0]["slices"], found[2]["slices"] = found[2]["slices"], found[0]["slices"]


def other_range(found: Descriptors) -> None:
    found[0]["packs"][0]["tensors"] = [[0, 3]]


def other_number(found: Descriptors) -> None:
    found[0]["packs"][0]["changed"] += 1


def other_path(found: Descriptors) -> None:
    found[0]["packs"][0]["path"] = "packs/elsewhere"


def other_sum(found: Descriptors) -> None:
    found[0]["slices"][0][3] = "0123456789abcdef"


def other_version(found: Descriptors) -> None:
    found[1]["version"] += 1


def unknown_feature(found: Descriptors) -> None:
    found[1]["features"] = ["strided-slices"]


def cut_short(found: Descriptors) -> None:
    found[1] = {"tensordelta": "1.0-rc.1"}


def next_major(found: Descriptors) -> None:
    found[1] = {"tensordelta": "2.0"}


#: What is done to three descriptors, the error, its rule, and what it says.
WRONG: list[tuple[Callable[[Descriptors], None], str, str, str]] = [
    (drop, "missing", "TD-FPR-007", "none claims words 15 to 29 of tensor 'a'"),
    (drop_last, "missing", "TD-FPR-007", "none claims words 30 to 39 of tensor 'a'"),
    (claim_twice, "malformed", "TD-MAN-019", "claims words 0 to 14 of tensor 'a'; descriptor 0 does too"),
    (reach_over, "malformed", "TD-MAN-019", "claims words 9 to 9 of tensor 'b'; descriptor 0 does too"),
    (leave_out, "missing", "TD-FPR-007", "none claims words 10 to 10 of tensor 'b'"),
    (pass_the_end, "malformed", "TD-CHK-008", "claims words 4 to 6 of tensor 2"),
    (no_such_tensor, "malformed", "TD-CHK-008", "claims words 0 to 0 of tensor 3"),
    (foreign_pack, "malformed", "TD-MAN-019", "its packs list"),
    (other_range, "malformed", "TD-MAN-030", "holds tensors 0 to 2"),
    (other_number, "malformed", "TD-MAN-011", "another number of words"),
    (other_path, "malformed", "TD-PTH-006", "packs/elsewhere"),
    (other_sum, "wrong-base", "TD-WRT-001", "tensor 'a' was not compared"),
    (other_version, "conflict", "TD-WRT-001", "belongs to another draft (version 2"),
    (unknown_feature, "unsupported", "TD-MAN-004", "strided-slices"),
    (cut_short, "malformed", "TD-JSN-011", "chain"),
    (next_major, "unsupported", "TD-VER-002", "2.0"),
]


@pytest.mark.parametrize(("harm", "name", "rule", "reason"), WRONG, ids=[each[0].__name__ for each in WRONG])
def test_descriptors_that_do_not_add_up(
    chain: td.Chain, harm: Callable[[Descriptors], None], name: str, rule: str, reason: str
) -> None:
    new = {"a": OLD["a"] + 1, "b": OLD["b"].copy(), "c": OLD["c"].copy()}
    new["b"][:3] += np.uint8(1)  # words of rank 0 alone
    draft = chain.draft()
    found = encoded(chain, draft, new, OLD)
    wrong = copy.deepcopy(found)
    harm(wrong)
    with pytest.raises(td.TensorDeltaError) as caught:
        draft.commit(wrong)
    assert (caught.value.name, caught.value.rule) == (name, rule) and reason in str(caught.value), str(caught.value)
    assert caught.value.object == "the descriptors" or caught.value.object.startswith("descriptor ")
    assert chain.versions() == [0]
    draft.commit(found)
    assert equal(chain.load(), new)


@pytest.mark.parametrize("options", [{}, {"order": "exponent"}, {"values": "replace"}])
@pytest.mark.parametrize("changed", [True, False])
def test_a_wrong_base_shard(chain: td.Chain, options: dict[str, Any], changed: bool) -> None:
    """A rank that compared with other words than the base's is found before the manifest exists, and named."""
    new = NEW if changed else OLD
    draft = chain.draft()
    found = encoded(chain, draft, new, OLD, **options)
    stale = {**OLD, "a": OLD["a"].copy()}
    stale["a"][4, 1] += 1  # a word of rank 1
    wrong = draft.encode(rows(new, 1, 3), rows(stale, 1, 3), **options)
    with pytest.raises(td.WrongBaseError) as caught:
        draft.commit([found[0], wrong, found[2]])
    assert "tensor 'a'" in caught.value.reason and "descriptor 1" in caught.value.object
    assert chain.versions() == [0]
    draft.commit(found)
    assert equal(chain.load(), new)


def test_words_that_change_under_a_rank(chain: td.Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs and fingerprints are made of the words one after the other: they tell that the words were written to."""
    new = {"w": np.ones(100, np.float32)}
    draft = chain.draft(new, layout_change=True)
    scan = td.Draft._scan

    def write_first(self: td.Draft, rows: Any) -> Any:
        new["w"][7] = 2
        return scan(self, rows)

    monkeypatch.setattr(td.Draft, "_scan", write_first)
    with pytest.raises(td.IntegrityError, match="do not make the words of tensor 'w'") as caught:
        draft.commit([draft.encode(new)])
    assert caught.value.object == "descriptor 0" and chain.versions() == [0]


def test_a_rank_that_is_asked_twice(chain: td.Chain) -> None:
    """The same descriptor again is fine, whatever time the rank took; another one of the same slices is not."""
    draft = chain.draft()
    found = encoded(chain, draft, NEW, OLD)
    again = encoded(chain, draft, NEW, OLD)
    digests = [[pack["sha256"] for pack in each["packs"]] for each in found]
    assert digests == [[pack["sha256"] for pack in each["packs"]] for each in again]
    other = draft.encode(rows(NEW, 1, 3), rows(OLD, 1, 3), values="replace")
    with pytest.raises(td.MalformedError) as caught:
        draft.commit([*found, other])
    assert caught.value.rule == "TD-MAN-019" and caught.value.object == "descriptor 3"
    draft.commit([found[0], json.dumps(found[1]), *again, found[2]])
    assert equal(chain.load(), NEW) and chain.verify(deep=True).ok


def test_a_pack_that_is_not_there(chain: td.Chain) -> None:
    draft = chain.draft()
    found = encoded(chain, draft, NEW, OLD)
    pack = Path(chain.address, found[1]["packs"][0]["path"])
    data = pack.read_bytes()
    pack.unlink()
    with pytest.raises(td.MissingError) as caught:
        draft.commit(found)
    assert caught.value.rule == "TD-OBJ-012" and "descriptor 1" in caught.value.reason
    pack.write_bytes(data[:-1])
    with pytest.raises(td.IntegrityError):
        draft.commit(found)
    pack.write_bytes(data)
    assert chain.versions() == [0]
    draft.commit(found)


# -- drafts and other versions -----------------------------------------------------------------------------------------


def test_a_draft_that_was_committed_already(chain: td.Chain) -> None:
    """A coordinator that died after the commit runs the step again, and finds that it is done."""
    draft = chain.draft()
    found = encoded(chain, draft, NEW, OLD)
    first = draft.commit(found)
    assert draft.commit(found).created == first.created
    again = td.open(chain.address).draft(version=1)
    assert (again.version, again.base) == (1, 0)
    assert again.commit(encoded(chain, again, NEW, OLD)).created == first.created
    assert chain.versions() == [0, 1]
    other = td.open(chain.address).draft(version=1)
    with pytest.raises(td.ConflictError) as caught:
        other.commit(encoded(chain, other, shift(NEW), OLD))
    assert caught.value.rule == "TD-WRT-006"
    assert equal(td.open(chain.address).load(), NEW)


def test_another_writer_was_faster(chain: td.Chain) -> None:
    draft = chain.draft()
    found = encoded(chain, draft, NEW, OLD)
    td.open(chain.address).publish(shift(NEW))
    with pytest.raises(td.ConflictError) as caught:
        draft.commit(found)
    assert caught.value.rule == "TD-WRT-006"


def test_a_later_version_came_meanwhile(chain: td.Chain) -> None:
    draft = chain.draft()
    found = encoded(chain, draft, NEW, OLD)
    td.open(chain.address).publish(shift(NEW), version=5)
    with pytest.raises(td.ConflictError) as caught:
        draft.commit(found)
    assert caught.value.rule == "TD-OBJ-014" and chain.versions() == [0, 5]
    with pytest.raises(ValueError, match="not greater than the newest"):
        chain.draft(version=3)


def test_a_base_that_was_replaced(chain: td.Chain) -> None:
    draft = chain.draft()
    found = encoded(chain, draft, NEW, OLD)
    manifest = Path(chain.address, "manifests", "000000000000.json")
    document = json.loads(manifest.read_text())
    document["fingerprint"] = "0123456789abcdef"
    manifest.write_text(json.dumps(document))
    with pytest.raises(td.WrongBaseError) as caught:
        td.open(chain.address).join(draft.to_json()).commit(found)
    assert caught.value.object == "manifests/000000000000.json"


def test_a_draft_of_another_chain(chain: td.Chain, tmp_path: Path) -> None:
    other = td.open(tmp_path / "other", create=True)
    other.publish(OLD)
    with pytest.raises(td.ConflictError) as caught:
        other.join(chain.draft().to_json())
    assert caught.value.rule == "TD-OBJ-011"
    theirs = other.draft()
    with pytest.raises(td.ConflictError, match="another draft"):
        chain.draft().commit([theirs.encode(OLD, OLD)])


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "malformed"),
        ("[]", "malformed"),
        ('{"tensordelta": "1.0-rc.1"}', "malformed"),
        ('{"tensordelta": "2.0"}', "unsupported"),
    ],
)
def test_what_is_no_draft(chain: td.Chain, text: str, name: str) -> None:
    with pytest.raises(td.TensorDeltaError) as caught:
        chain.join(text)
    assert caught.value.name == name and caught.value.object == "the draft"


def test_a_signed_version(tmp_path: Path) -> None:
    """The coordinator signs; ranks need no key."""
    key = secret_key("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = key.public.raw.hex()
    chain = td.open(tmp_path / "chain", create=True, key=key)
    draft = chain.draft(OLD)
    found = encoded(chain, draft, OLD)
    draft.commit(found)
    assert equal(td.open(chain.address, trusted_keys=[public]).load(), OLD)
    # A coordinator that does not know whether it committed does it again.
    assert chain.draft(OLD, version=0).commit(found, annotations={"step": "9"}).annotations == {}
    unsigned = td.open(tmp_path / "other", create=True, chain=chain.id)
    draft = unsigned.draft(OLD)
    found = encoded(unsigned, draft, OLD)
    draft.commit(found)
    unsigned.sign(key, [])
    with pytest.raises(td.UntrustedError) as caught:
        td.open(unsigned.address, key=key).draft(OLD, version=0).commit(found)
    assert caught.value.rule == "TD-SIG-012"
    with pytest.raises(ValueError, match="key"):
        td.open(chain.address, trusted_keys=[public]).draft()


# -- real processes ----------------------------------------------------------------------------------------------------

RANKS = 8


class Ranks:
    """Eight processes that share nothing but the folder of the chain."""

    def __init__(self, address: str) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._address = address
        self.pipes: list[Any] = [None] * RANKS
        self.processes: list[Any] = [None] * RANKS
        for rank in range(RANKS):
            self.start(rank)

    def start(self, rank: int) -> None:
        mine, theirs = self._context.Pipe()
        process = self._context.Process(target=rank_main, args=(theirs, self._address, rank, RANKS))
        process.start()
        theirs.close()
        self.pipes[rank], self.processes[rank] = mine, process

    def encode(self, draft: td.Draft, options: dict[str, Any], *, victim: int | None = None) -> Descriptors:
        for rank, pipe in enumerate(self.pipes):
            pipe.send((draft.to_json(), draft.version, options, rank == victim))
        return [pipe.recv() for rank, pipe in enumerate(self.pipes) if rank != victim]

    def close(self) -> None:
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            if process.is_alive():
                pipe.send(None)
            process.join(30)
            pipe.close()


@pytest.mark.slow
def test_eight_processes_of_which_one_dies(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True, threads=1)
    ranks = Ranks(chain.address)
    try:
        draft = chain.draft(model(0))
        draft.commit(ranks.encode(draft, {}))
        assert equal(chain.load(), model(0))

        draft = chain.draft()
        options = {"order": "exponent"}
        found = ranks.encode(draft, options, victim=5)
        with pytest.raises(EOFError):
            ranks.pipes[5].recv()
        ranks.processes[5].join(30)
        assert ranks.processes[5].exitcode == -9
        stored = {path.name for path in Path(chain.address, "packs").iterdir()}
        with pytest.raises(td.MissingError) as caught:
            draft.commit(found)
        assert caught.value.rule == "TD-FPR-007" and chain.versions() == [0]

        ranks.start(5)
        ranks.pipes[5].send((draft.to_json(), draft.version, options, False))
        late = ranks.pipes[5].recv()
        # Two of its packs were there already, and are the same; it has more.
        before = {name.partition("-")[0] for name in stored}
        assert sum(pack["sha256"] in before for pack in late["packs"]) == 2 < len(late["packs"])
        done = draft.commit([*found, late])
    finally:
        ranks.close()
    assert (done.version, done.base) == (1, 0)
    assert equal(td.open(chain.address).load(), model(1))
    assert chain.verify(deep=True).ok
    assert all(process.exitcode == 0 for process in ranks.processes)


@pytest.mark.slow
def test_the_example_with_torch(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    example = Path(__file__).parents[2] / "reference" / "examples" / "fsdp_publish.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=4", str(example)]
    done = subprocess.run([*command, str(tmp_path / "chain")], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "every bit" in done.stdout
    assert td.open(tmp_path / "chain").verify(deep=True).ok
