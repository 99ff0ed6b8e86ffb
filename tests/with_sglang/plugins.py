"""Loads SGLang's plugins once imported, as a scheduler's process does it: before anything of a model is imported."""

from __future__ import annotations

import absent  # noqa: F401 - before SGLang

# isort: split
from sglang.srt.managers.scheduler import load_plugins

load_plugins()
