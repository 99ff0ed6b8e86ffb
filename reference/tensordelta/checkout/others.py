"""Files that lie in a checkout and that no pull made."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import PurePosixPath

from ..stores.anchored import Folder

#: Suffixes of the files that programs which load a model may take: weights, code, templates, configuration.
_TAKEN = frozenset(
    ".bin .ckpt .gguf .h5 .jinja .json .model .msgpack .npz .pkl .pt .pth .py .safetensors .so .tiktoken .txt .yaml"
    " .yml".split()
)


def left_alone(tree: Folder, made: Iterable[str]) -> tuple[str, ...]:
    """Names of the files that a loader may take beside those that pulls made, such as an adapter.

    Args:
        tree: the folder. It is looked at, and those of its subfolders in which pulls made files.
        made: names of the files that pulls made.
    """
    ours = frozenset(made)
    names = tree.names()
    for folder in {str(parent) for name in ours for parent in PurePosixPath(name).parents[:-1]}:
        with suppress(FileNotFoundError, NotADirectoryError), tree.folder(folder) as opened:
            names += [f"{folder}/{each}" for each in opened.names()]
    return tuple(
        sorted(
            name
            for name in names
            if PurePosixPath(name).suffix.lower() in _TAKEN and name not in ours and not tree.is_folder(name)
        )
    )
