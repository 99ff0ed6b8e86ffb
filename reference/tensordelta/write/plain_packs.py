"""A checkpoint's own files in a chain: its shards as plain packs, and the other files (SPEC.md sections 4.8, 4.9)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from msgspec import UNSET

from ..errors import IntegrityError
from ..format.manifest import TENSORS, PackEntry, ranges_of
from ..format.names import new_salt, pack_name
from ..state.checkpoint import DEFAULT_SHARD, Checkpoint, Shard
from ..state.index import INDEX, INDEX_SUFFIX, build_index, read_index
from ..state.own_file import OwnFile
from ..state.shard_file import ShardFile


def check_source(source: str) -> None:
    """Check that a source names bytes that do not change.

    Raises:
        ValueError: no URI with a commit.
    """
    if "://" not in source or "@" not in source:
        raise ValueError(f"the source {source!r} names no commit: write hf://ORG/MODEL@COMMIT")


def plain_entry(shard: Shard, checkpoint: Checkpoint, source: str | None) -> PackEntry:
    """A manifest's entry of a shard.

    Args:
        shard: the shard, which is read for its digest.
        checkpoint: whose shard it is.
        source: where the checkpoint's files lie publicly; the pack then has no path in the store.
    """
    digest = hashlib.sha256()
    for part in shard.file.parts():
        digest.update(part)
    sha256 = digest.hexdigest()
    held = [checkpoint.layout.index[name] for name in shard.header.entries]
    return PackEntry(
        sha256=sha256,
        size=shard.file.size,
        path=None if source else pack_name(sha256, new_salt()),
        content=TENSORS,
        tensors=ranges_of(held or [0]),
        changed=sum(checkpoint.layout.tensors[index].words for index in held),
        sources=[f"{source.rstrip('/')}/{shard.name}"] if source else UNSET,
        name=shard.name if checkpoint.is_folder else DEFAULT_SHARD,
    )


def checkpoint_files(checkpoint: Checkpoint) -> dict[str, bytes | OwnFile] | None:
    """The files that belong to a checkpoint, by name; None for a single file, which implies none.

    An index is among them unless all tensors are in one file of the default name.
    """
    if not checkpoint.is_folder:
        return None
    files: dict[str, bytes | OwnFile] = {
        name: file for name, file in checkpoint.files.items() if not name.endswith(INDEX_SUFFIX)
    }
    if {shard.name for shard in checkpoint.shards} != {DEFAULT_SHARD}:
        name, shard_of = checkpoint.index or INDEX, checkpoint.shard_of
        file = checkpoint.files.get(name)
        # Readers lay tensors out by the index, so one that does not agree with the files is written anew.
        kept = file is not None and read_index(file.read(), object=str(file.path)) == shard_of
        files[name] = file if file is not None and kept else build_index(shard_of, checkpoint.layout.nbytes)
    return files


def file_stamps(checkpoint: Checkpoint) -> list[tuple[int, int, int]]:
    """Inode, size and time of a checkpoint's files; equal stamps mean that no file was changed."""
    status = [shard.path.stat() for shard in checkpoint.shards]
    return [(each.st_ino, each.st_size, each.st_mtime_ns) for each in status]


def changed(path: Path) -> IntegrityError:
    """The error for a file that no longer has the bytes that were read first."""
    return IntegrityError(
        "changed while it was published; nothing was",
        object=str(path),
        rule="TD-PCK-004",
        advice="Publish it again when no other process writes to it.",
    )


def same_parts(file: ShardFile | OwnFile, sha256: str) -> Iterator[bytes]:
    """The bytes of a file in parts.

    Raises:
        IntegrityError: after the last part, if their SHA-256 is another one.
    """
    digest = hashlib.sha256()
    for part in file.parts():
        digest.update(part)
        yield part
    if digest.hexdigest() != sha256:
        raise changed(file.path)
