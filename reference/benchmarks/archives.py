"""Ways in which the versions of a model are kept on disk, each with the same six calls, for `versions.py`.

Words are uint16, since not all of these know bfloat16. A way whose package is not installed is left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

import tensordelta as td

Words = NDArray[np.uint16]


class Archive(ABC):
    """Versions of a model in a folder. What is opened anew each time is what a new process would open.

    Attributes:
        name: how tables call it.
        packages: what has to be installed.
        raw: True if it is plain files, which can be mapped.
    """

    name: str
    packages: Sequence[str] = ()
    raw = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @abstractmethod
    def save(self, version: int, state: Mapping[str, Words]) -> None:
        """Keep the next version."""

    @abstractmethod
    def versions(self) -> list[int]:
        """All versions, ascending."""

    @abstractmethod
    def load(self, version: int) -> dict[str, Words]:
        """A version in memory."""

    @abstractmethod
    def tensor(self, version: int, name: str) -> Words:
        """One tensor of a version in memory."""

    def changed(self, old: int, new: int) -> dict[str, int]:
        """How many words of each tensor differ between two versions: by loading both, unless there is a better way."""
        before, after = self.load(old), self.load(new)
        return {name: int(np.count_nonzero(before[name] != words)) for name, words in after.items()}


class Tensordelta(Archive):
    """Chains of this package, in natural order."""

    name = "tensordelta"

    def save(self, version: int, state: Mapping[str, Words]) -> None:
        chain = td.open(self.folder, create=True)
        chain.publish({name: words.view(ml_dtypes.bfloat16) for name, words in state.items()})

    def versions(self) -> list[int]:
        return td.open(self.folder).versions()

    def load(self, version: int) -> dict[str, Words]:
        return {name: array.view(np.uint16) for name, array in td.open(self.folder).load(version).items()}

    def tensor(self, version: int, name: str) -> Words:
        found: Words = td.open(self.folder)[version][name].view(np.uint16)
        return found

    def changed(self, old: int, new: int) -> dict[str, int]:
        return {each.name: each.changed for each in td.open(self.folder).diff(old, new).tensors}


class Safetensors(Archive):
    """A safetensors file for each version."""

    name = "safetensors files"
    packages = ("safetensors",)
    raw = True

    def _path(self, version: int) -> Path:
        return self.folder / f"step_{version}.safetensors"

    def save(self, version: int, state: Mapping[str, Words]) -> None:
        self.folder.mkdir(exist_ok=True)
        import_module("safetensors.numpy").save_file(dict(state), self._path(version))

    def versions(self) -> list[int]:
        return sorted(int(path.stem.removeprefix("step_")) for path in self.folder.iterdir())

    def load(self, version: int) -> dict[str, Words]:
        found: dict[str, Words] = import_module("safetensors.numpy").load_file(self._path(version))
        return found

    def tensor(self, version: int, name: str) -> Words:
        with import_module("safetensors").safe_open(self._path(version), "numpy") as file:
            found: Words = file.get_tensor(name)
        return found


class Icechunk(Archive):
    """A repository of zarr arrays, a commit for each version."""

    name = "icechunk"
    packages = ("icechunk", "zarr")

    def _repository(self) -> Any:
        icechunk = import_module("icechunk")
        return icechunk.Repository.open_or_create(icechunk.local_filesystem_storage(str(self.folder)))

    def _snapshots(self, repository: Any) -> list[str]:
        """The commits of versions, ascending; the first commit of a repository is its own."""
        found = [each.id for each in repository.ancestry(branch="main") if each.message.startswith("version ")]
        return found[::-1]

    def _group(self, version: int) -> Any:
        repository = self._repository()
        session = repository.readonly_session(snapshot_id=self._snapshots(repository)[version])
        return import_module("zarr").open_group(session.store, mode="r")

    def save(self, version: int, state: Mapping[str, Words]) -> None:
        session = self._repository().writable_session("main")
        group = import_module("zarr").open_group(session.store, mode="a")
        for name, words in state.items():
            if name in group:
                group[name][...] = words
            else:
                group.create_array(name, data=words)
        session.commit(f"version {version}")

    def versions(self) -> list[int]:
        return list(range(len(self._snapshots(self._repository()))))

    def load(self, version: int) -> dict[str, Words]:
        return {name: array[...] for name, array in self._group(version).arrays()}

    def tensor(self, version: int, name: str) -> Words:
        found: Words = self._group(version)[name][...]
        return found


class Lance(Archive):
    """A Lance dataset of one row for each tensor, overwritten by each version; Lance keeps the older ones."""

    name = "lance"
    packages = ("lance", "pyarrow")

    def save(self, version: int, state: Mapping[str, Words]) -> None:
        pyarrow = import_module("pyarrow")
        table = pyarrow.table(
            {
                "name": list(state),
                "shape": [list(words.shape) for words in state.values()],
                "words": pyarrow.array([words.tobytes() for words in state.values()], pyarrow.large_binary()),
            }
        )
        import_module("lance").write_dataset(table, str(self.folder), mode="overwrite" if version else "create")

    def _dataset(self, version: int | None = None) -> Any:
        return import_module("lance").dataset(str(self.folder), version=None if version is None else version + 1)

    def versions(self) -> list[int]:
        return [each["version"] - 1 for each in self._dataset().versions()]

    def _rows(self, table: Any) -> dict[str, Words]:
        columns = (table[name] for name in ("name", "shape", "words"))
        return {
            name.as_py(): np.frombuffer(words.as_buffer(), np.uint16).reshape(shape.as_py())
            for name, shape, words in zip(*columns, strict=True)
        }

    def load(self, version: int) -> dict[str, Words]:
        return self._rows(self._dataset(version).to_table())

    def tensor(self, version: int, name: str) -> Words:
        return self._rows(self._dataset(version).to_table(filter=f"name = '{name}'"))[name]


class DistributedCheckpoint(Archive):
    """A folder of torch.distributed.checkpoint for each version."""

    name = "torch DCP"
    packages = ("torch",)

    def _folder(self, version: int) -> Path:
        return self.folder / f"step_{version}"

    def save(self, version: int, state: Mapping[str, Words]) -> None:
        torch = import_module("torch")
        tensors = {name: torch.from_numpy(words.view(np.int16)) for name, words in state.items()}
        import_module("torch.distributed.checkpoint").save(tensors, checkpoint_id=self._folder(version), no_dist=True)

    def versions(self) -> list[int]:
        return sorted(int(path.name.removeprefix("step_")) for path in self.folder.iterdir())

    def _load(self, version: int, only: str | None) -> dict[str, Words]:
        torch, checkpoint = import_module("torch"), import_module("torch.distributed.checkpoint")
        metadata = checkpoint.FileSystemReader(self._folder(version)).read_metadata().state_dict_metadata
        tensors = {
            name: torch.empty(each.size, dtype=torch.int16)
            for name, each in metadata.items()
            if only is None or name == only
        }
        checkpoint.load(tensors, checkpoint_id=self._folder(version), no_dist=True)
        return {name: tensor.numpy().view(np.uint16) for name, tensor in tensors.items()}

    def load(self, version: int) -> dict[str, Words]:
        return self._load(version, None)

    def tensor(self, version: int, name: str) -> Words:
        return self._load(version, name)[name]


ARCHIVES: Sequence[type[Archive]] = (Tensordelta, Safetensors, Icechunk, Lance, DistributedCheckpoint)
