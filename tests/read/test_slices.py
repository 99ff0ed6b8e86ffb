"""Updates of a state that several holders have together, without a copy of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from holders import ArrayWrite, Cut, Shards, Threads, words_of
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples

import tensordelta as td
from tensordelta.format.names import manifest_name, shortcut_name
from tensordelta.state.group import GroupError
from tensordelta.state.slice_update import SliceUpdate, agree, agree_on_route

Arrays = dict[str, np.ndarray]


def model() -> Arrays:
    rng = np.random.default_rng(3)
    return {
        "matrix": rng.standard_normal((12, 16), np.float32).astype(np.float16),
        "norm": rng.standard_normal(16, np.float32),
        "odd": rng.integers(0, 255, 13, np.uint8),
        "zeros": np.zeros(40, np.float16),
    }


def changed(arrays: Arrays, seed: int) -> Arrays:
    rng = np.random.default_rng(seed)
    after = {name: array.copy() for name, array in arrays.items()}
    for array in after.values():
        words = words_of(array).reshape(-1)
        at = rng.choice(len(words), max(len(words) // 5, 1), replace=False)
        words[at] ^= words.dtype.type(rng.integers(1, 200))
    return after


def chain_of(
    folder: Path, values: Sequence[str], *, first: Arrays | None = None, **how: Any
) -> tuple[td.Chain, list[Arrays]]:
    """A chain whose versions are written with these value codecs, and the arrays of each version."""
    chain = td.open(folder / "chain", create=True, threads=1)
    states = [first or model()]
    chain.publish(states[0])
    for seed, each in enumerate(values):
        states.append(changed(states[-1], seed))
        chain.publish(states[-1], values=each, **how)
    return chain, states


def everything(array: np.ndarray) -> np.ndarray:
    return array


def columns(rank: int, ranks: int) -> Cut:
    return lambda array: array[..., array.shape[-1] * rank // ranks : array.shape[-1] * (rank + 1) // ranks]


def rows(rank: int, ranks: int) -> Cut:
    return lambda array: array[array.shape[0] * rank // ranks : array.shape[0] * (rank + 1) // ranks]


def cuts(rank: int, ranks: int) -> dict[str, list[Cut]]:
    """Columns of the matrix, the norm in all of them, the odd one in rows, and one tensor in the last alone, twice."""
    last = [everything, everything] if rank == ranks - 1 else []
    return {
        "matrix": [columns(rank, ranks)],
        "norm": [everything],
        "odd": [rows(rank, ranks)],
        "zeros": last,
    }


def start(chain: td.Chain, arrays: Arrays, ranks: int, work: Callable[[Shards], Any]) -> list[Any]:
    """Do something with each of several holders of a version, at once."""
    group, layout = Threads(ranks), chain.layout(0)

    def one(rank: int) -> Any:
        shards = Shards(layout, arrays, cuts(rank, ranks), group.member(rank))
        shards.holder.meet(shards.holder.group.gather(shards.holder.blocks))
        chain.identify(shards.holder)
        return work(shards)

    return group.run(one)


def advance(chain: td.Chain, shards: Shards, version: int) -> SliceUpdate:
    update = chain.prepare(shards.holder, version)
    update.agree()
    update.apply()
    return update


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_holders_follow_a_chain_together(tmp_path: Path, ranks: int) -> None:
    """Over deltas of both codecs, several at once, shortcuts, and back over a full version."""
    chain, states = chain_of(tmp_path, ["step", "replace", "step", "step"])

    def follow(shards: Shards) -> None:
        assert shards.holder.version == 0
        for version in (1, 3, 4, 0, 2):
            update = advance(chain, shards, version)
            assert shards.is_of(states[version])
            assert (update.version, shards.holder.version) == (version, version)
            assert chain.identify(shards.holder) == version

    assert start(chain, states[0], ranks, follow) == [None] * ranks


def test_an_update_is_undone_by_all(tmp_path: Path) -> None:
    chain, states = chain_of(tmp_path, ["step", "step"])

    def back_and_forth(shards: Shards) -> None:
        update = advance(chain, shards, 2)
        assert update.stale
        update.undo()
        assert shards.is_of(states[0])
        assert shards.holder.version == 0
        update.apply()
        assert shards.is_of(states[2])

    assert start(chain, states[0], 2, back_and_forth) == [None, None]


@given(data=st.data())
@examples(40)
def test_any_way_to_cut_a_tensor_gives_the_same_words(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Holders with runs, columns and replicas that overlap anyhow; the first that has a word owns it."""
    chain, states = chain_of(tmp_path_factory.mktemp("chain"), ["step", "replace"])
    ranks = data.draw(st.integers(1, 3))
    bounds = st.tuples(st.integers(0, 16), st.integers(0, 16)).map(sorted)
    own = [[data.draw(bounds), data.draw(bounds)] for _ in range(ranks)]
    own[data.draw(st.integers(0, ranks - 1))] = [[0, 16], [0, 16]]  # each word has to be somewhere

    def work(rank: int) -> None:
        (low, high), (first, last) = own[rank]
        mine: dict[str, list[Cut]] = {
            "matrix": [lambda array: array[first:last, low:high]],
            "norm": [lambda array: array[low:high]],
            "odd": [lambda array: array[first:last]],
            "zeros": [lambda array: array[low * 2 : high * 3]],
        }
        shards = Shards(chain.layout(0), states[0], mine, group.member(rank))
        shards.holder.meet(shards.holder.group.gather(shards.holder.blocks))
        assert chain.identify(shards.holder) == 0
        advance(chain, shards, 2)
        assert shards.is_of(states[2])
        assert chain.identify(shards.holder) == 2

    group = Threads(ranks)
    assert group.run(work) == [None] * ranks


# -- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("digests", ["another fingerprint", "nothing"])
def test_all_holders_refuse_where_one_remembers_another_version(tmp_path: Path, digests: str) -> None:
    """None of them goes on, to wait for one that has stopped."""
    chain, states = chain_of(tmp_path, ["step"])

    def one(shards: Shards) -> None:
        holder = shards.holder
        if holder.group.rank == 1:
            version, (layout, _) = holder.version, holder.version_digests
            holder.version = holder.version_digests = None
            if digests == "another fingerprint":
                holder.hold(version, chain.id, (layout, "0123456789abcdef"))
        with pytest.raises(td.WrongBaseError, match="remember different versions"):
            chain.identify(holder)

    assert start(chain, states[0], 3, one) == [None] * 3


def flipped(arrays: list[Arrays], rank: int, shards: Shards) -> None:
    """Flip a bit that version 1 lists, in one rank."""
    listed = np.flatnonzero(words_of(arrays[0]["norm"]) != words_of(arrays[1]["norm"]))[0]
    if shards.holder.group.rank == rank:
        shards.pieces["norm"][0][listed] ^= 1


@pytest.mark.parametrize("values", ["step", "replace"])
def test_a_flipped_listed_word_of_an_owner_is_refused_by_all(tmp_path: Path, values: str) -> None:
    """With `replace` the sum of the changes shows it, with `step` that of the new words."""
    chain, states = chain_of(tmp_path, [values])
    kind, said = {
        "replace": (td.IntegrityError, "fingerprint would be"),
        "step": (td.WrongBaseError, "not those that were written"),
    }[values]

    def update(shards: Shards) -> None:
        flipped(states, 0, shards)
        prepared = chain.prepare(shards.holder, 1)
        with pytest.raises(kind, match=said):
            prepared.agree()
        with pytest.raises(RuntimeError, match="`agree` comes before"):
            prepared.apply()
        assert shards.holder.version == 0

    assert start(chain, states[0], 2, update) == [None, None]


def test_a_flipped_replica_is_replaced(tmp_path: Path) -> None:
    chain, states = chain_of(tmp_path, ["replace"])

    def update(shards: Shards) -> None:
        flipped(states, 1, shards)
        advance(chain, shards, 1)
        assert shards.is_of(states[1])

    assert start(chain, states[0], 2, update) == [None, None]


def test_a_flipped_replica_is_refused_over_a_delta_of_steps(tmp_path: Path) -> None:
    chain, states = chain_of(tmp_path, ["step"])

    def update(shards: Shards) -> None:
        flipped(states, 1, shards)
        with pytest.raises(td.WrongBaseError, match="not the same in all of them"):
            chain.prepare(shards.holder, 1).agree()

    assert start(chain, states[0], 2, update) == [None, None]


def test_a_second_place_of_one_holder_is_proven(tmp_path: Path) -> None:
    chain, states = chain_of(tmp_path, ["step"])
    listed = np.flatnonzero(words_of(states[0]["zeros"]) != words_of(states[1]["zeros"]))[0]
    shards = Shards(chain.layout(0), states[0], cuts(0, 1))
    assert chain.identify(shards.holder) == 0
    shards.pieces["zeros"][1][listed] ^= 1
    with pytest.raises(td.WrongBaseError, match="'zeros' lies in two places"):
        chain.prepare(shards.holder, 1)
    with pytest.raises(td.WrongBaseError, match="'zeros' differs"):
        chain.identify(shards.holder)


def test_a_flipped_word_that_no_update_lists_is_found_by_a_scan(tmp_path: Path) -> None:
    chain, states = chain_of(tmp_path, ["step"])

    def flip(shards: Shards) -> None:
        if shards.holder.group.rank == 1:
            shards.pieces["matrix"][0][5, 3] ^= 1
        with pytest.raises(td.WrongBaseError, match="those of version 0 no more"):
            chain.identify(shards.holder)

    failed = start(chain, states[0], 2, flip)
    assert all(isinstance(each, GroupError) or each is None for each in failed)


def test_holders_of_other_updates_and_holders_that_fail_are_told_apart(tmp_path: Path) -> None:
    """By one sum over the holders, and one exchange of texts where one of them failed."""
    chain, states = chain_of(tmp_path, ["step", "step"])

    def prepare(shards: Shards) -> SliceUpdate:
        if shards.holder.group.rank:
            raise ValueError("no memory left")
        return chain.prepare(shards.holder, 1)

    def update(shards: Shards) -> None:
        mine = chain.prepare(shards.holder, 1 + shards.holder.group.rank)
        with pytest.raises(td.WrongBaseError, match="different updates"):
            mine.agree()
        assert mine.differs
        with pytest.raises(GroupError, match="rank 1: ValueError: no memory left"):
            agree(shards.holder.group, lambda: prepare(shards))
        agree(shards.holder.group, lambda: chain.prepare(shards.holder, 1)).apply()
        assert shards.is_of(states[1])

    assert start(chain, states[0], 2, update) == [None, None]


def test_a_holder_fetches_the_packs_of_its_tensors_alone(tmp_path: Path) -> None:
    """One holder has a tensor that lies in the midst of the others in the layout; two packs, one for each holder."""
    folder = tmp_path / "chain"
    chain = td.open(folder, create=True, threads=1)
    before = {name: np.full(50, number, np.float32) for number, name in enumerate("abcde")}
    after = {name: array + 1 for name, array in before.items()}
    owners = "ace", "bd"
    for state, base in ((before, None), (after, before)):
        draft = chain.draft(state if base is None else None, **({"layout_change": True} if base is None else {}))
        parts = [{name: state[name] for name in group} for group in owners]
        bases = [None if base is None else {name: base[name] for name in group} for group in owners]
        joined = chain.join(draft.to_json())
        draft.commit([joined.encode(part, old) for part, old in zip(parts, bases, strict=True)])
    packs = chain.manifest(1).packs
    group = Threads(2)

    def work(rank: int) -> None:
        reader = td.open(folder, threads=1)
        fetched: list[str | None] = []
        fetch = reader._reader.packs.fetch
        reader._reader.packs.fetch = lambda entry, **how: (fetched.append(entry.path), fetch(entry, **how))[1]  # type: ignore[method-assign]
        mine = {name: [everything] if name in owners[rank] else [] for name in before}
        shards = Shards(reader.layout(0), before, mine, group.member(rank))
        shards.holder.meet(shards.holder.group.gather(shards.holder.blocks))
        assert reader.identify(shards.holder) == 0
        advance(reader, shards, 1)
        assert shards.is_of(after)
        assert fetched == [packs[rank].path]

    assert group.run(work) == [None, None]


def test_plain_packs_count_as_changes(tmp_path: Path) -> None:
    """A checkpoint's own shard, taken as it is, in a full version that two holders go over to."""
    from safetensors.numpy import save_file

    chain, states = chain_of(tmp_path, ["step"])
    (tmp_path / "checkpoint").mkdir()
    save_file(states[0], tmp_path / "checkpoint" / "model.safetensors")
    chain.publish(tmp_path / "checkpoint", plain=True)
    assert [entry.content for entry in chain.manifest(2).packs] == ["tensors"]

    def update(shards: Shards) -> None:
        advance(chain, shards, 1)
        advance(chain, shards, 2)
        assert shards.is_of(states[0])
        assert chain.identify(shards.holder) == 2

    assert start(chain, states[0], 2, update) == [None, None]


def test_missing_and_unknown_words_are_refused(tmp_path: Path) -> None:
    chain, states = chain_of(tmp_path, ["step"])
    some = {"matrix": [rows(0, 2)], "norm": [everything], "odd": [everything], "zeros": [everything]}
    with pytest.raises(td.WrongBaseError, match="'matrix' has 96 of its 192 words"):
        chain.identify(Shards(chain.layout(0), states[0], some).holder)
    with pytest.raises(td.WrongBaseError, match="those of no version"):
        chain.identify(Shards(chain.layout(0), changed(states[0], 99), cuts(0, 1)).holder)
    with pytest.raises(RuntimeError, match="identify"):
        chain.prepare(Shards(chain.layout(0), states[0], cuts(0, 1)).holder, 1)
    with pytest.raises(ValueError, match="share words"):
        Shards(chain.layout(0), states[0], {"norm": [lambda array: array[:5], lambda array: array[4:]]})


def test_order_exponent_needs_the_words_of_its_tensors(tmp_path: Path) -> None:
    chain, states = chain_of(tmp_path, ["step"], order="exponent")

    def update(shards: Shards) -> str:
        try:
            advance(chain, shards, 1)
        except td.UnsupportedError as error:
            assert shards.is_of(states[0])
            return error.rule
        assert shards.is_of(states[1])
        return "updated"

    assert start(chain, states[0], 1, update) == ["updated"]
    group = Threads(2)
    layout = chain.layout(0)
    halves = [Shards(layout, states[0], cuts(rank, 2), group.member(rank)) for rank in range(2)]
    digests = chain.manifest(0).layout, chain.manifest(0).fingerprint
    for shards in halves:
        shards.holder.hold(0, chain.id, digests)
    assert [update(shards) for shards in halves] == ["TD-RDR-017"] * 2


def test_another_layout_is_refused(tmp_path: Path) -> None:
    chain, states = chain_of(tmp_path, [])
    chain.publish(states[0] | {"more": np.zeros(3, np.float32)}, layout_change=True)
    shards = Shards(chain.layout(0), states[0], cuts(0, 1))
    chain.identify(shards.holder)
    with pytest.raises(td.UnsupportedError, match="another layout"):
        chain.prepare(shards.holder)
    assert shards.is_of(states[0])


def test_an_update_for_words_that_have_moved_on_is_refused(tmp_path: Path) -> None:
    chain, states = chain_of(tmp_path, ["step", "step"])
    shards = Shards(chain.layout(0), states[0], cuts(0, 1))
    chain.identify(shards.holder)
    first, second = chain.prepare(shards.holder, 1), chain.prepare(shards.holder, 2)
    first.apply()
    with pytest.raises(td.WrongBaseError, match="was updated after"):
        second.apply()
    with pytest.raises(td.WrongBaseError, match="not the last"):
        second.undo()
    assert shards.is_of(states[1])


def test_an_interrupted_scatter_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain, states = chain_of(tmp_path, ["step"])
    shards = Shards(chain.layout(0), states[0], cuts(0, 1))
    chain.identify(shards.holder)
    update = chain.prepare(shards.holder)
    left, do = [2], ArrayWrite.do

    def fail(write: ArrayWrite) -> None:
        left[0] -= 1
        do(write)
        if not left[0]:
            raise KeyboardInterrupt

    monkeypatch.setattr(ArrayWrite, "do", fail)
    with pytest.raises(KeyboardInterrupt):
        update.apply()
    assert shards.is_of(states[0])
    update.apply()
    assert shards.is_of(states[1])


def test_a_follower_takes_a_holder(tmp_path: Path) -> None:
    chain, states = chain_of(tmp_path, ["step", "step"])
    shards = Shards(chain.layout(0), states[0], cuts(0, 1))
    chain.identify(shards.holder)
    for update in chain.follow(shards.holder, poll=0.01, until=2):
        update.apply()
    assert shards.is_of(states[2])


def test_an_edge_that_is_passed_over_is_said(tmp_path: Path) -> None:
    chain, states = chain_of(tmp_path, ["step", "step"])
    chain.shortcut(0, 2)
    root = Path(chain.address)
    (root / json.loads((root / shortcut_name(2, 0)).read_text())["packs"][0]["path"]).unlink()
    reader = td.open(root, threads=1)
    shards = Shards(chain.layout(0), states[0], cuts(0, 1))
    reader.identify(shards.holder)
    update = reader.prepare(shards.holder)
    assert [type(fault) for fault in update.passed_over] == [td.MissingError]
    update.apply()
    assert shards.is_of(states[2])


def test_holders_take_another_route_where_an_edge_failed_for_one(tmp_path: Path) -> None:
    """Each of two reads its own copy of the chain; the second's lost a pack of the cheapest route."""
    chain, states = chain_of(tmp_path, ["step", "step"])
    chain.shortcut(0, 2)
    roots = [Path(chain.address), tmp_path / "copy"]
    shutil.copytree(*roots)
    (roots[1] / json.loads((roots[1] / shortcut_name(2, 0)).read_text())["packs"][0]["path"]).unlink()
    group = Threads(2)

    def work(rank: int) -> None:
        reader = td.open(roots[rank], threads=1)
        shards = Shards(reader.layout(0), states[0], cuts(rank, 2), group.member(rank))
        holder = shards.holder
        holder.meet(holder.group.gather(holder.blocks))
        reader.identify(holder)
        assert reader.prepare(holder, 2).route == (
            (shortcut_name(2, 0),) if rank == 0 else (manifest_name(1), manifest_name(2))
        )
        update = agree_on_route(holder.group, lambda without: reader.prepare(holder, 2, without=without))
        assert (update.route, update.dropped) == ((manifest_name(1), manifest_name(2)), (shortcut_name(2, 0),))
        update.apply()
        assert shards.is_of(states[2])

    assert group.run(work) == [None, None]


def test_no_holder_goes_on_where_no_route_is_left_for_all(tmp_path: Path) -> None:
    """The first one lost a pack of the shortcut, the second one a pack of the other route."""
    chain, states = chain_of(tmp_path, ["step", "step"])
    chain.shortcut(0, 2)
    roots = [Path(chain.address), tmp_path / "copy"]
    shutil.copytree(*roots)
    for root, name in zip(roots, (shortcut_name(2, 0), manifest_name(1)), strict=True):
        (root / json.loads((root / name).read_text())["packs"][0]["path"]).unlink()
    group = Threads(2)

    def work(rank: int) -> None:
        reader = td.open(roots[rank], threads=1)
        shards = Shards(reader.layout(0), states[0], cuts(rank, 2), group.member(rank))
        holder = shards.holder
        holder.meet(holder.group.gather(holder.blocks))
        reader.identify(holder)
        agree_on_route(holder.group, lambda without: reader.prepare(holder, 2, without=without))

    assert [type(each) for each in group.run(work)] == [GroupError, GroupError]
