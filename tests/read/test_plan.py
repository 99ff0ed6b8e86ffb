"""Plans: what a reader would take, told without taking it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from gallery import good_chain, manifest_name, open_chain

import tensordelta as td
from tensordelta.cli import main


@pytest.mark.parametrize("base", [None, 0, 2, 5])
def test_a_plan_is_what_a_reader_takes(base: int | None) -> None:
    chain = open_chain(good_chain("shortcuts"))
    for version in chain.versions():
        state = td.State.empty() if base is None else chain.load(base)
        update = chain.prepare(state, version)
        chain.store.reads.clear()
        plan = chain.plan(version, base)
        assert (plan.route, plan.size) == (update.route, update.size)
        assert not any(name.startswith("packs/") for name in chain.store.reads)
        assert plan.size == sum(edge.manifest.size for edge in plan.edges)


def test_the_newest_from_nothing_is_what_is_planned() -> None:
    chain = open_chain(good_chain("shortcuts"))
    assert chain.plan().route == chain.prepare(td.State.empty()).route
    assert (chain.plan().version, chain.plan().base) == (chain.newest(), None)


def test_a_version_that_is_held_costs_nothing() -> None:
    chain = open_chain(good_chain("shortcuts"))
    assert chain.plan(3, 3).edges == () and chain.plan(3, 3).size == 0


def test_a_base_whose_manifest_is_gone() -> None:
    chain = open_chain(good_chain("shortcuts"))
    from_2 = chain.plan(6, 2).route
    del chain.store.objects[manifest_name(2)]
    again = open_chain(good_chain("shortcuts"))
    del again.store.objects[manifest_name(2)]
    assert again.plan(6, 2).route == from_2, "a reader that holds it goes on"


def test_versions_that_do_not_exist() -> None:
    chain = open_chain(good_chain("shortcuts"))
    with pytest.raises(td.MissingError):
        chain.plan(77)


def test_the_table_and_the_command(tmp_path: Path) -> None:
    builder = good_chain("shortcuts")
    for name, data in builder.objects.items():
        path = tmp_path / "chain" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    chain = td.open(tmp_path / "chain", threads=1)
    plan = chain.plan(6, 2)
    for edge in plan.edges:
        assert edge.name in repr(plan) and edge.name in plan._repr_html_()

    def run(*arguments: str) -> str:
        done = CliRunner().invoke(main, ["plan", str(tmp_path / "chain"), *arguments])
        assert done.exit_code == 0, done.output
        return done.output

    assert json.loads(run("--from", "2", "--to", "6", "--json")) == plan.facts()
    assert plan.facts()["edges"][0]["from"] == 2  # type: ignore[index]
    assert json.loads(run("--json")) == json.loads(run("--from", "nothing", "--json")) == chain.plan().facts()
    assert repr(plan).splitlines()[0] in run("--from", "2", "--to", "6")
