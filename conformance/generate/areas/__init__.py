"""The cases, area by area; each module registers its own when it is imported."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable

from generate.cases import CASES, Case


def names() -> list[str]:
    """The modules there are."""
    return [each.name for each in pkgutil.iter_modules(__path__)]


_LOADED: dict[str, dict[str, Case]] = {}


def load(chosen: Iterable[str] | None = None) -> dict[str, Case]:
    """The cases of some modules, or of all, by id."""
    if chosen is None:
        for name in names():
            importlib.import_module(f"{__name__}.{name}")
        return dict(CASES)
    found: dict[str, Case] = {}
    for name in chosen:
        if name not in _LOADED:
            before = set(CASES)
            importlib.import_module(f"{__name__}.{name}")
            _LOADED[name] = {slug: each for slug, each in CASES.items() if slug not in before}
        found |= _LOADED[name]
    return found
