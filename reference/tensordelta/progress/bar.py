"""Progress drawn by tqdm: a widget in a notebook, a line in a terminal."""

from __future__ import annotations

import warnings
from typing import Any

from .phases import Phase, View


class Bar(View):
    """Shows what the block does with tqdm, once that has taken a second.

    In a notebook chains do so by themselves; `TQDM_DISABLE=1` in the environment turns it off.

    Raises:
        ImportError: tqdm is not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        try:
            with warnings.catch_warnings():
                # A notebook without ipywidgets has a line in place of a widget; tqdm would say so by a path of its own.
                warnings.simplefilter("ignore")
                from tqdm.auto import tqdm
        except ModuleNotFoundError:
            raise ImportError("progress in Python needs tqdm: pip install tqdm") from None
        self._make: Any = tqdm
        self._bar: Any = None
        self._shown: Phase | None = None

    def show(self, phase: Phase) -> None:
        if phase is not self._shown:
            self.hide()
            unit = {"unit": "B", "unit_scale": True} if phase.unit == "bytes" else {"unit": f" {phase.unit}"}
            self._bar = self._make(total=phase.total, desc=phase.doing, leave=False, **unit)
            self._shown = phase
        self._bar.n = phase.done
        self._bar.refresh()

    def hide(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = self._shown = None
