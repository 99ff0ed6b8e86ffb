"""How results show themselves: every kind has a table, and a notebook gets HTML in which text stays text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tensordelta as td
from tensordelta.tables import Shown, Table, as_facts, as_table


def kinds() -> list[type[Shown]]:
    return sorted(Shown.__subclasses__(), key=lambda kind: kind.__name__)


def test_every_kind_of_result_is_registered() -> None:
    assert {"Collected", "Copied", "Diff", "History", "Pin", "Plan", "Published", "Verification"} <= {
        kind.__name__ for kind in kinds()
    }
    for kind in kinds():
        assert as_table.dispatch(kind) is not as_table.dispatch(object), kind
        assert kind is td.History or as_facts.dispatch(kind) is not as_facts.dispatch(object), kind


def test_results_are_shown_at_a_prompt_and_in_a_notebook(tmp_path: Path) -> None:
    chain = td.open(tmp_path / "chain", create=True)
    weights = {"<w>": np.arange(100, dtype=np.float32)}
    published = chain.publish(weights, annotations={"note": "<b>"})
    weights["<w>"][3] += 1
    chain.publish(weights)
    results = [
        published,
        chain,
        chain.log(),
        chain.manifest(0),
        chain.plan(),
        chain.load(),
        chain.verify(),
        chain.pin(0, "p"),
        chain.collect(1, dry_run=True),
        td.copy(chain.address, tmp_path / "copy"),
        td.diff(chain.load(0), weights),
    ]
    for result in results:
        shown = result._repr_html_()
        assert shown.startswith("<p>") and shown.endswith(("</p>", "</table>"))
        assert "<w>" not in shown and "<b>" not in shown
        assert repr(result)
    assert "note=&lt;b&gt;" in published._repr_html_()
    assert "annotation note" in chain.manifest(0)._repr_html_()
    assert repr(published).splitlines()[0] == "published version 0"
    assert repr(chain).splitlines()[0] == f"chain {chain.id} at {chain.address}"
    assert chain.log().table("mine").title == "mine"


def test_what_has_no_text_is_not_shown() -> None:
    table = Table("t", ["<name", "size", "<note"], [["a", "1", ""], ["b", "2", ""]])
    assert table.text().splitlines()[1:] == ["name  size", "a        1", "b        2"]
    assert "note" not in table.html() and table.html().count("<tr>") == 3
    assert Table("t", ["<name"], []).text() == "t" and Table("t", ["<name"], []).html() == "<p>t</p>"
    assert Table("t", ["size", "<note"], [["1 kB", "a b " * 9]]).html().count("nowrap") == 1
    assert Table("t", ["", ""], [["a", "1"]]).html().count("<tr>") == 1


def test_what_is_no_result_has_no_table() -> None:
    with pytest.raises(TypeError, match="int has no table"):
        as_table(3)
    with pytest.raises(TypeError, match="Table has no facts"):
        as_facts(Table("t", [], []))
