"""Stands in for `torchvision` and `vllm`, once imported.

SGLang imports them and uses nothing of them here; their releases on the package index need CUDA.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from typing import Any, ClassVar

from transformers.utils import is_torchvision_available


class _Absent(types.ModuleType):
    """A package of which every attribute is an empty class."""

    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _Absentees(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the packages where nothing else does."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> importlib.machinery.ModuleSpec | None:
        is_meant = name.split(".")[0] in ("torchvision", "vllm")
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if is_meant else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Absent(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


is_torchvision_available()  # transformers notes that it is absent, and keeps to that
sys.meta_path.append(_Absentees())
