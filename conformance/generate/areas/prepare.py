"""Prepare, apply and undo (SPEC.md section 9.3)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from generate.builder import Builder
from generate.model import Model, Random, Tensor, random_tensor, tensor
from generate.scenes import ABSENT, Held, Scene, line, little, move, play, walk
from generate.standard import flipped

AREA = "reader"


def _case(
    slug: str,
    title: str,
    requirements: Sequence[str],
    chain: Callable[[], Builder],
    scene: Callable[[Scene], None],
    *,
    level: str = "reader-core",
    valid: bool = True,
    twin: str | None = None,
) -> None:
    play(
        slug,
        area=AREA,
        title=title,
        requirements=requirements,
        chain=chain,
        scene=scene,
        level=level,
        valid=valid,
        twin=twin,
        needs=["prepare"],
    )


def _prepare(scene: Scene, to: int, held: Held, error: str = "") -> None:
    """A request to prepare; what is held is looked at by others."""
    scene.step("prepare", scene.ask(held, to), {"error": [error]} if error else {"version": to})


def _two() -> Builder:
    return line(walk(2))


def _prepared(scene: Scene) -> None:
    _prepare(scene, 1, held=0)
    scene.read(0, 0)  # takes no edge, so that it shows what is held


def _applied(to: int) -> Callable[[Scene], None]:
    def scene(scene: Scene) -> None:
        _prepare(scene, to, held=0)
        scene.apply(to)

    return scene


_case("prepare", "Prepare leaves the state held as it is", ["TD-RDR-002"], _two, _prepared)
_case("prepare-and-apply", "Apply makes the new state of the one held", ["TD-APP-002"], _two, _applied(1))


def _undone(to: int, held: int | None = 0) -> Callable[[Scene], None]:
    def scene(scene: Scene) -> None:
        _prepare(scene, to, held)
        scene.apply(to)
        scene.apply(held, op="undo")

    return scene


_case(
    "undo",
    "Undo gives the words before apply back",
    ["TD-APP-003"],
    _two,
    _undone(1),
)


def _layouts() -> Builder:
    """Two edges that drop, add, reshape and retype tensors; some of them words, some zero."""
    first = little() | {"d": random_tensor(Random(11), "F16", (2, 3))}
    second = {name: each for name, each in first.items() if name != "b.bias"}
    second["d"] = random_tensor(Random(12), "F16", (3, 2))
    third = second | {"a.weight": tensor("F16", (4, 6), 5), "b.bias": tensor("F32", (5,)), "e": tensor("U8", (), 1)}
    del third["c.ids"]
    return line([first, second, third])


_case(
    "apply-over-two-layouts",
    "A prepared update spans two edges that change the layout, and is applied with all of its fitting",
    ["TD-APP-002"],
    _layouts,
    _applied(2),
    level="chain",
)
_case(
    "undo-over-two-layouts",
    "Undo gives back the tensors that were dropped, reshaped and retyped, with their words, and drops the added ones",
    ["TD-APP-003"],
    _layouts,
    _undone(2),
    level="chain",
)


def _other_full() -> Builder:
    builder = line(walk(1))
    move(builder, 1, {"x": tensor("U8", (3,), [1, 2, 3])} | little(13), None)
    return builder


_case(
    "undo-of-a-full-version",
    "Undo of a full version gives back the state that it took the place of",
    ["TD-APP-003"],
    _other_full,
    _undone(1),
    level="chain",
)


def _undone_to_nothing(scene: Scene) -> None:
    _prepare(scene, 1, held=None)
    scene.apply(1)
    scene.step("undo", {}, {"any": [scene.after(None), scene.after({})]})


_case(
    "undo-to-nothing",
    "Undo of the first update ends with nothing held, or with a state without tensors",
    ["TD-APP-003"],
    _two,
    _undone_to_nothing,
)
_case(
    "prepare-what-is-held",
    "The target is held already: apply and undo change nothing",
    ["TD-RTE-008", "TD-APP-003"],
    _two,
    _undone(1, held=1),
)


def _update_of_another(scene: Scene) -> None:
    """Two updates, the second prepared for the result of the first."""
    _prepare(scene, 1, held=0)
    scene.apply(1)
    _prepare(scene, 2, held=ABSENT)
    scene.apply(2)
    scene.apply(1, op="undo")


_case(
    "prepare-again",
    "A second update is prepared for the result of the first, applied, and taken back",
    ["TD-APP-002", "TD-APP-003"],
    lambda: line(walk(3)),
    _update_of_another,
)

# -- another state than the one prepared for ---------------------------------------------------------------------------


def _and_another(other: Callable[[Model], Model]) -> Callable[[], Builder]:
    """Versions 0 and 1, and as version 2, which is full, a state like 0 but for what `other` does."""

    def chain() -> Builder:
        builder = _two()
        builder.full(2, other(builder.models[0]))
        return builder

    return chain


def _applied_to_another(scene: Scene) -> None:
    _prepare(scene, 1, held=0)
    scene.read(2, 2, held=2)
    scene.apply(2, "wrong-base")


def _refused(slug: str, title: str, other: Callable[[Model], Model]) -> None:
    _case(
        slug,
        title,
        ["TD-APP-001"],
        _and_another(other),
        _applied_to_another,
        valid=False,
        twin="prepare-and-apply",
    )


def _stepped(model: Model, listed: bool) -> Model:
    """One word more or less than in version 0: one that version 1 changes, or one that it does not."""
    old, new = model["c.ids"].words, walk(2)[1]["c.ids"].words
    at = next(number for number in range(len(old)) if (old[number] != new[number]) == listed)
    words = old.copy()
    words[at] ^= 0x55
    return model | {"c.ids": Tensor("U8", (7,), words)}


_refused(
    "apply-to-another-listed-word",
    "A prepared update meets a state of which a word that it writes is another",
    lambda model: _stepped(model, True),
)
_refused(
    "apply-to-another-unlisted-word",
    "A prepared update meets a state of which a word that it does not write is another",
    lambda model: _stepped(model, False),
)
_refused(
    "apply-to-another-shape",
    "A prepared update meets a state of the same words in another shape",
    lambda model: model | {"a.weight": Tensor("BF16", (24,), model["a.weight"].words)},
)
_refused(
    "apply-to-one-tensor-more",
    "A prepared update meets a state with one more tensor, of zero words",
    lambda model: model | {"z": tensor("U8", (4,))},
)


def _applied_twice(scene: Scene) -> None:
    _prepare(scene, 1, held=0)
    scene.apply(1)
    scene.apply(1, "wrong-base")


_case(
    "apply-twice",
    "A prepared update is applied, and meets its own result",
    ["TD-APP-001"],
    _two,
    _applied_twice,
    valid=False,
    twin="prepare-and-apply",
)


def _from_nothing_onto_a_state(scene: Scene) -> None:
    _prepare(scene, 1, held=None)
    scene.read(2, 2, held=2)
    scene.apply(2, "wrong-base")


_case(
    "apply-from-nothing-onto-a-state",
    "An update prepared with nothing held meets a state",
    ["TD-APP-001"],
    _and_another(lambda model: little(14)),
    _from_nothing_onto_a_state,
    valid=False,
    twin="prepare-and-apply",
)


def _prepared_in_vain(scene: Scene) -> None:
    _prepare(scene, 1, held=0, error="integrity")
    scene.read(0, 0)


def _altered() -> Builder:
    builder = _two()
    builder.change(builder.pack_names(1)[0], flipped(-1))
    return builder


_case(
    "prepare-in-vain",
    "Prepare meets an altered pack, and leaves the state held as it is",
    ["TD-RDR-001"],
    _altered,
    _prepared_in_vain,
    valid=False,
    twin="prepare-and-apply",
)
