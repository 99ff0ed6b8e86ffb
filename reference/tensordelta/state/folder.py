"""What of a Hugging Face folder makes its checkpoint: its weights, its small files, and what is neither.

Weights are chosen as loaders choose them. Where loaders would choose differently, or would find a part only, the folder
is refused. All else that is not taken is listed with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from os import DirEntry, scandir
from pathlib import Path

from ..errors import LimitError, MalformedError, MissingError, UntrustedError
from ..format.names import CHAIN, MAX_PATH, is_path
from .index import INDEX_SUFFIX, SUFFIX, read_index
from .own_file import MAX_FILE, OwnFile, OwnFolder
from .shard_file import check_is_itself

#: Weights files that loaders look for, without suffix; the first one that is there is the checkpoint.
_USUAL = ("model", "diffusion_pytorch_model")
#: Bytes that all files of a checkpoint may have, other than safetensors files.
_MAX_FILES = 4 * 2**30

_SHARD = re.compile(r"(?P<stem>.+?)[-_.]?(?P<number>\d+)-of-(?P<count>\d+)(?P<variant>(\.[^.]+)*)\.safetensors")
_INDEX = re.compile(r".+\.(safetensors|bin|h5|msgpack)\.index(\.[^.]+)*\.json")

_FORMATS = frozenset(".bin .ckpt .distcp .gguf .h5 .msgpack .npy .npz .onnx .pkl .pt .pth .tflite .safetensors".split())
_TEMPORARY = frozenset([".lock", ".tmp", ".incomplete", ".part"])
_EVENTS = "events.out.tfevents"
_LOG_FOLDERS = frozenset("completions lightning_logs logs mlruns runs tensorboard wandb".split())
_STEP_FOLDER = re.compile(r"(checkpoint|global_?step|step|epoch|iter)[-_]?\d+")
#: Files that a trainer keeps beside the weights of one step, and files that only a whole model has.
_TRAINER_FILES = frozenset("optimizer.bin optimizer.pt rng_state.pth scheduler.pt trainer_state.json".split())
_MODEL_FILES = frozenset("generation_config.json tokenizer.json tokenizer.model tokenizer_config.json".split())
#: What a pulled folder has.
_PULLED = ".tensordelta"

OTHER_WEIGHTS = "other weights"
OTHER_FORMAT = "weights of another format"
OTHER_CHECKPOINT = "another checkpoint"
A_CHAIN = "a chain"
CHARACTERS = "its name has characters that paths of the format lack"
TOO_LONG = f"its path has more than {MAX_PATH} characters"
TOO_LARGE = f"larger than {MAX_FILE >> 20} MiB"
DEAD_LINK = "a link that leads nowhere"
LINK_OUT = "a link that leads out of the folder"
FOLDER_LINK = "a link to a folder"
NO_FILE = "no regular file"
LOGS = "logs of a trainer"
TEMPORARY = "a temporary file"
UNREADABLE = "cannot be read"
HIDDEN = "hidden"
#: In this order they are listed.
_REASONS = (
    *(
        OTHER_WEIGHTS,
        OTHER_FORMAT,
        CHARACTERS,
        TOO_LONG,
        TOO_LARGE,
        DEAD_LINK,
        LINK_OUT,
        FOLDER_LINK,
        NO_FILE,
        UNREADABLE,
    ),
    *(OTHER_CHECKPOINT, A_CHAIN, LOGS, TEMPORARY, HIDDEN),
)


@dataclass(frozen=True)
class LeftOut:
    """Something in a folder that is no part of its checkpoint.

    Attributes:
        name: its path in the folder; that of a folder, which is left out with all that it holds, ends with a slash.
        reason: why, such as "other weights", "a chain" or "hidden".
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Contents:
    """What a folder is made of.

    Attributes:
        shards: the safetensors files that are its weights: names, ascending, and where they lie, without links.
        index: name of the index of these files, if there is one.
        weight_map: what the index says: name of the tensor -> name of the file.
        files: its small files by name (config.json, tokenizer …).
        left_out: all else.
    """

    shards: Mapping[str, Path]
    index: str | None
    weight_map: Mapping[str, str]
    files: Mapping[str, OwnFile]
    left_out: Sequence[LeftOut]


def contents_of(folder: Path) -> Contents:
    """What of a folder makes its checkpoint.

    Raises:
        MissingError: it holds no safetensors file; or a shard is missing.
        MalformedError: it holds two sets of weights of which loaders choose differently; an index that does not agree
            with the files; a weights file whose name has characters that paths of the format lack; or a pointer of Git
            LFS or a web page in the place of a file.
        UntrustedError: weights, or their index, are a link that leads out of the folder.
        LimitError: its files are too large, all together, or its index is.
    """
    own = OwnFolder(folder)
    found = _Walk(folder, own)
    chosen = _chosen(folder, own, list(_sets(found.weights, found.indices).values()))
    if chosen is None:
        raise _no_weights(folder, found)
    index, weight_map, shards = chosen
    for name in found.weights + found.deeper_weights:
        if name not in shards:
            found.leave_out(name, OTHER_WEIGHTS)
    for name in found.indices:
        if name != index:
            found.leave_out(name, OTHER_WEIGHTS)
        elif (folder / name).is_file():
            found.files[name] = _taken(folder, own, name)
    _check_size(folder, found.files.values())
    for file in found.files.values():
        check_is_itself(file)
    left_out = sorted(found.left_out, key=lambda each: (_REASONS.index(each.reason), each.name))
    real = {name: _taken(folder, own, name).real for name in shards}
    return Contents(real, index, weight_map, dict(sorted(found.files.items())), left_out)


def _taken(folder: Path, own: OwnFolder, name: str) -> OwnFile:
    """A file without which the checkpoint is not whole.

    Raises:
        UntrustedError: it is a link that leads out of the folder.
        MissingError: it is a link that leads nowhere.
    """
    path = folder / name
    if not path.exists():
        raise _missing(path, "is a link that leads nowhere" if path.is_symlink() else "is not there")
    real = own.real(name)
    if real is None:
        raise UntrustedError(
            f"is {LINK_OUT}",
            object=str(path),
            rule="TD-PCK-014",
            advice="If you mean the file to which it leads, copy it into the folder, or name that file.",
        )
    return OwnFile(path, real)


def _check_size(folder: Path, files: Iterable[OwnFile]) -> None:
    """Check the size of all small files together.

    Raises:
        LimitError: they are too large.
    """
    size = sum(file.size for file in files)
    if size > _MAX_FILES:
        raise LimitError(
            f"holds {size:,} bytes of files beside the weights, and a version may have {_MAX_FILES:,}",
            object=str(folder),
            rule="TD-PCK-014",
            advice="Move the files that the model does not need out of the folder.",
        )


def check_is_whole(path: Path) -> None:
    """Check that a file is no shard of a larger checkpoint, by its name.

    Raises:
        MissingError: it is one.
    """
    match = _SHARD.fullmatch(path.name)
    if match and int(match["count"]) > 1:
        raise MissingError(
            f"is one of {int(match['count'])} files of a checkpoint",
            object=str(path),
            rule="TD-PCK-014",
            advice="Name its folder, so that all of them are taken.",
        )


# -- the weights ------------------------------------------------------------------------------------------------------


@dataclass
class _Set:
    """Weights files that belong together by their names: X.safetensors, or X-00001-of-00002.safetensors and so on."""

    stem: str
    single: str | None = None
    shards: list[str] = field(default_factory=list)
    index: str | None = None


def _sets(weights: Iterable[str], indices: Iterable[str]) -> dict[str, _Set]:
    """The sets in a folder, by what is common to the names of their files."""
    sets: dict[str, _Set] = {}

    def of(stem: str) -> _Set:
        return sets.setdefault(stem, _Set(stem))

    for name in weights:
        match = _SHARD.fullmatch(name)
        if match:
            of(match["stem"] + match["variant"]).shards.append(name)
        else:
            of(name.removesuffix(SUFFIX)).single = name
    for name in indices:
        if name.endswith(INDEX_SUFFIX):
            of(name.removesuffix(INDEX_SUFFIX)).index = name
    return sets


def needed(sizes: Mapping[str, int], *, weights_only: bool) -> list[str]:
    """The files of a folder that `contents_of` needs, where they are not here yet.

    Args:
        sizes: bytes of each file, by name.
        weights_only: without its small files.
    """
    top = [name for name in sizes if "/" not in name and not name.startswith(".")]
    weights = [name for name in top if name.endswith(SUFFIX)]
    found: list[str | None] = []
    for each in _preferred(list(_sets(weights, filter(_INDEX.fullmatch, top)).values())):
        found += [each.index, each.single, *each.shards]
    names = [name for name in found if name is not None]
    if not weights_only and names:
        names += [name for name, size in sizes.items() if _is_small(name, size)]
    return names


def _is_small(name: str, size: int) -> bool:
    """True for a file that may be one of the small files of a checkpoint, by its name and size."""
    suffix = Path(name).suffix.lower()
    hidden = any(part.startswith(".") for part in name.split("/"))
    return not (hidden or suffix in _FORMATS | _TEMPORARY or _INDEX.fullmatch(name) or size > MAX_FILE)


def _preferred(sets: Sequence[_Set]) -> Sequence[_Set]:
    """The sets that are the checkpoint: those of the usual name, else of an index, else all."""
    usual = [each for stem in _USUAL for each in sets if each.stem == stem]
    usual.sort(key=lambda each: each.single is None and each.index is None)  # shards alone may have another's index
    return usual[:1] or [each for each in sets if each.index is not None] or sets


def _chosen(folder: Path, own: OwnFolder, sets: list[_Set]) -> tuple[str | None, dict[str, str], list[str]] | None:
    """The index, what it says, and the files that are the folder's weights; None if there are none."""
    taken = _preferred(sets)
    indexed = [each for each in taken if each.index is not None]
    if len(indexed) > 1:
        several = f"{indexed[0].index} and {indexed[1].index}"
        raise _malformed(folder, f"holds {several}, of different weights", "Remove one of them, with its files.")
    if not taken:
        return None
    weight_map: dict[str, str] = {}
    index = taken[0].index
    if index is not None:
        weight_map = _read_index(folder, own, index)
    names: list[str] = []
    for each in taken:
        names += _files_of(folder, each, weight_map)
    _check_complete(folder, names)
    for name in names:
        if not is_path(name):
            raise MalformedError(
                f"the file name {name!r} has characters that paths of the format lack",
                object=str(folder),
                rule="TD-PTH-001",
                advice="Rename the file: letters, digits and ._- are allowed.",
            )
    return index, weight_map, sorted(names)


def _read_index(folder: Path, own: OwnFolder, index: str) -> dict[str, str]:
    file = _taken(folder, own, index)
    check_is_itself(file)
    weight_map = read_index(file.read(), object=str(file.path))
    if not weight_map:
        raise _malformed(file.path, "names no tensor", "Write the index again, or remove it.")
    return weight_map


def _files_of(folder: Path, each: _Set, weight_map: Mapping[str, str]) -> list[str]:
    """The files of one set.

    Raises:
        MalformedError: its names allow two choices, or the index leaves one out.
        MissingError: the index names a file that is not there.
    """
    if each.index is None:
        if each.single is not None and each.shards:
            raise _malformed(
                folder,
                f"holds {each.single} beside {each.shards[0]}, and loaders differ in which they take",
                "Remove the older ones, or name the one file.",
            )
        return [each.single] if each.single is not None else each.shards
    named = sorted(set(weight_map.values()))
    beside = [name for name in (each.single, *each.shards) if name is not None and name not in named]
    if each.single in beside:
        raise _malformed(
            folder,
            f"holds {each.single} beside {each.index}, which does not name it, and loaders differ in which they take",
            "Remove the older weights, or name the one file.",
        )
    if beside:
        raise _malformed(
            folder / each.index,
            f"does not name {beside[0]}, which lies beside it",
            "Remove the file if it is of other weights, or write the index again.",
        )
    for name in named:
        if not (folder / name).exists():
            reason = "is a link that leads nowhere" if (folder / name).is_symlink() else "is not there"
            raise _missing(folder / name, f"{reason}; {each.index} names it")
    return named


def _check_complete(folder: Path, names: Iterable[str]) -> None:
    """Check that shards that are numbered are all there.

    Raises:
        MissingError: one is missing.
        MalformedError: they are of several sets.
    """
    numbers: dict[str, dict[int, list[int]]] = {}
    for name in names:
        match = _SHARD.fullmatch(name)
        if match:
            counts = numbers.setdefault(match["stem"] + match["variant"], {})
            counts.setdefault(int(match["count"]), []).append(int(match["number"]))
    for stem, counts in numbers.items():
        if len(counts) > 1:
            several = " and ".join(f"of {count}" for count in sorted(counts))
            raise _malformed(
                folder, f"holds shards of {stem} that are numbered {several}", "Remove those of older weights."
            )
        ((count, found),) = counts.items()
        wanted, held = range(count) if 0 in found else range(1, count + 1), set(found)
        lost = next((number for number in wanted if number not in held), None)
        if lost is not None:
            raise _missing(folder, f"lacks shard {lost} of {count} of {stem}")
        if len(found) > count:
            raise _malformed(
                folder, f"holds {len(found)} shards of {stem}, not {count}", "Remove those of older weights."
            )


def _no_weights(folder: Path, found: _Walk) -> MissingError:
    others = {each.name.rstrip("/") for each in found.left_out if each.reason == OTHER_CHECKPOINT}
    deeper = sorted({name.rpartition("/")[0] for name in found.deeper_weights} | others)
    formats = [each.name for each in found.left_out if each.reason == OTHER_FORMAT]
    advice = "Name a safetensors file, or a folder of them."
    if formats:
        advice = f"Save the weights of {formats[0]} as safetensors, as save_pretrained does."
    if deeper:
        advice = f"Name the folder that holds them: {', '.join(deeper[:5])}{' …' if len(deeper) > 5 else ''}."
    reason = "is empty: it holds no safetensors file" if found.is_empty else "holds no safetensors file"
    return MissingError(reason, object=str(folder), rule="TD-PCK-014", advice=advice)


def _missing(path: Path, reason: str) -> MissingError:
    advice = "Download the rest of the checkpoint, or save it again."
    return MissingError(reason, object=str(path), rule="TD-PCK-014", advice=advice)


def _malformed(path: Path, reason: str, advice: str) -> MalformedError:
    return MalformedError(reason, object=str(path), rule="TD-PCK-014", advice=advice)


# -- all else ---------------------------------------------------------------------------------------------------------


class _Walk:
    """A folder and its subfolders, each file in its kind.

    Attributes:
        weights, indices: names of the safetensors files, and of indices of any weights, in the folder itself.
        deeper_weights: names of the safetensors files in subfolders.
        files: the small files, by name.
        left_out: all else.
        is_empty: there is nothing at all.
    """

    def __init__(self, folder: Path, own: OwnFolder) -> None:
        self._own = own
        self.weights: list[str] = []
        self.indices: list[str] = []
        self.deeper_weights: list[str] = []
        self.files: dict[str, OwnFile] = {}
        self.left_out: list[LeftOut] = []
        entries = _entries(folder)
        self.is_empty = not entries
        self._enter(entries, "")

    def leave_out(self, name: str, reason: str) -> None:
        self.left_out.append(LeftOut(name, reason))

    def _enter(self, entries: Sequence[DirEntry[str]], above: str) -> None:
        for entry in entries:
            name = above + entry.name
            if _leads_to(entry, folder=True):
                self._add_folder(entry, name)
            elif not self._add_weights(entry, name, above):
                real = self._own.real(name)
                reason = _why_no_file(entry, name, leads_out=real is None)
                if reason is None and real is not None:
                    self.files[name] = OwnFile(Path(entry.path), real)
                else:
                    self.leave_out(name, reason or LINK_OUT)

    def _add_folder(self, entry: DirEntry[str], name: str) -> None:
        reason, entries = _name_fault(name) or (FOLDER_LINK if entry.is_symlink() else None), []
        if reason is None:
            try:
                entries = _entries(entry.path)
            except OSError:
                reason = UNREADABLE
        reason = reason or _why_no_part(entry.name, {each.name for each in entries})
        if reason is not None:
            self.leave_out(f"{name}/", reason)
        else:
            self._enter(entries, f"{name}/")

    def _add_weights(self, entry: DirEntry[str], name: str, above: str) -> bool:
        """Note a safetensors file or an index; False for all else."""
        if entry.name.startswith("."):
            return False
        there = _leads_to(entry) or entry.is_symlink()  # a link that leads nowhere may be a shard that is missing
        if there and entry.name.endswith(SUFFIX):
            (self.deeper_weights if above else self.weights).append(name)
            return True
        if there and _INDEX.fullmatch(entry.name):
            if above:
                self.leave_out(name, OTHER_WEIGHTS)
            else:
                self.indices.append(name)
            return True
        return False


def _entries(folder: str | Path) -> list[DirEntry[str]]:
    with scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _leads_to(entry: DirEntry[str], *, folder: bool = False) -> bool:
    """True for a regular file, or for a folder, and for a link to one."""
    try:
        return entry.is_dir() if folder else entry.is_file()
    except OSError:  # links that lead to one another
        return False


def _why_no_part(name: str, held: set[str]) -> str | None:
    """Why a subfolder is no part of the checkpoint; None if it may be one.

    Args:
        name: the folder's own name.
        held: names of what it holds.
    """
    if CHAIN in held:
        return A_CHAIN
    if name.lower() in _LOG_FOLDERS or any(each.startswith(_EVENTS) for each in held):
        return LOGS
    has_weights = any(Path(each).suffix.lower() in _FORMATS for each in held)
    if (
        _PULLED in held
        or _STEP_FOLDER.fullmatch(name.lower())
        or held & _TRAINER_FILES
        or (has_weights and held & _MODEL_FILES)
    ):
        return OTHER_CHECKPOINT
    return None


def _why_no_file(entry: DirEntry[str], name: str, *, leads_out: bool) -> str | None:
    """Why a file is no small file of the checkpoint; None if it is one.

    Args:
        entry: the file.
        name: its name in the checkpoint.
        leads_out: it is a link that leads out of the folder.
    """
    suffix = Path(entry.name).suffix.lower()
    fault = _name_fault(name)
    if fault == HIDDEN:
        return HIDDEN
    if suffix in _FORMATS:
        return OTHER_FORMAT
    if suffix in _TEMPORARY:
        return TEMPORARY
    if suffix == ".log" or entry.name.startswith(_EVENTS) or entry.name in _TRAINER_FILES:
        return LOGS
    if not _leads_to(entry):
        return DEAD_LINK if entry.is_symlink() else NO_FILE
    if leads_out:
        return LINK_OUT
    if entry.stat().st_size > MAX_FILE:
        return TOO_LARGE
    return fault


def _name_fault(name: str) -> str | None:
    if name.rpartition("/")[2].startswith("."):
        return HIDDEN
    if len(name) > MAX_PATH:
        return TOO_LONG
    return None if is_path(name) else CHARACTERS


def names_text(left_out: Iterable[LeftOut]) -> str:
    """What was left out, in one line: a.safetensors, b/c.safetensors (other weights); .git/ (hidden)."""
    return "; ".join(names_lines(left_out))


def names_lines(left_out: Iterable[LeftOut], *, most: int = 8) -> Iterator[str]:
    """What was left out, a line for each reason; of so many names at most."""
    names: dict[str, list[str]] = {}
    for each in left_out:
        names.setdefault(each.reason, []).append(each.name)
    for reason, found in names.items():
        more = f" and {len(found) - most:,} more" if len(found) > most else ""
        yield f"{', '.join(found[:most])}{more} ({reason})"
