"""What a pull believes of a folder that holds a version already.

The folder's record is a file like the others: who prepares a folder can make a record that matches it. So the record is
compared with the chain, which has digests of the small files and names of the shards. Of the words it has fingerprints
only, and other words with the same fingerprint are made in a second (SPEC.md section 18): where there are trusted keys,
words count only in a folder that this user's last pull with keys left as it is.
"""

from __future__ import annotations

from ..errors import TensorDeltaError, UntrustedError, WrongBaseError
from ..format.layout import Layout
from ..format.manifest import TENSORS, Manifest
from ..read.reader import Reader
from ..state.index import INDEX_SUFFIX
from ..stores.anchored import Folder
from .examination import Examination
from .record import Holding
from .shards import altered
from .staging import FileLayout


def damage(
    held: Holding, found: Examination, reader: Reader, manifest: Manifest, folders: tuple[Folder, Folder]
) -> list[str]:
    """Why the folder has to be made anew before it can be brought to a version; empty where it need not.

    Args:
        held: its record.
        found: what an examination found.
        reader: of the chain.
        manifest: that of the version wanted.
        folders: the folder, and its private folder.

    Raises:
        WrongBaseError: the chain has another version under the number of the version held, which is the one wanted.
    """
    if found.altered:
        return [*found.altered.values()]
    if not is_own(held, found, reader, folders[1]):
        return ["its record and files are not as a pull of this user with trusted keys left them"]
    if held.version != manifest.version:
        if not _is_known(found, reader, folders[0]):
            return [f"the folder's record is not that of version {held.version}"]
        return []
    _check_same(held, reader, manifest, folders[0])
    names = _other_files(held, reader, manifest)
    return [f"the folder's record has other files than version {held.version}: {_some(names)}"] if names else []


def check_unchanged(
    held: Holding, found: Examination, reader: Reader, manifest: Manifest, folders: tuple[Folder, Folder]
) -> None:
    """Check that a folder that cannot be written to holds a version; arguments as of `damage`.

    Raises:
        WrongBaseError: it does not.
        UntrustedError: there are trusted keys, and no pull of this user with keys left it so.
    """
    found.refuse(folders[0])
    if not is_own(held, found, reader, folders[1]):
        raise UntrustedError(
            "cannot be written to, and is not as a pull of this user with trusted keys left it",
            object=str(folders[0].path),
            rule="TD-SEC-001",
            advice="Pull into a folder of your own.",
        )
    _check_same(held, reader, manifest, folders[0])
    names = _other_files(held, reader, manifest)
    if names:
        raise altered(folders[0], f"its record has other files than version {held.version}: {_some(names)}")


def is_own(held: Holding, found: Examination, reader: Reader, private: Folder) -> bool:
    """True where a pull of this user with trusted keys left the folder as it is, or no keys are given."""
    trust = reader.documents.trust
    if trust is None or not trust.remembers:
        return True
    return found.files == held.files and trust.has_left(identity(private), held.digest)


def note_own(digest: str, reader: Reader, private: Folder) -> None:
    """Remember, where there are trusted keys, that a pull left the folder with the record of this digest."""
    trust = reader.documents.trust
    if trust is not None and trust.remembers:
        trust.note_folder(identity(private), digest)


def identity(private: Folder) -> str:
    """What a checkout's private folder is remembered by: no other folder that exists has it."""
    status = private.status()
    return f"{status.st_dev:x}-{status.st_ino:x}"


def _is_known(found: Examination, reader: Reader, folder: Folder) -> bool:
    """False where the chain has another version of this number, and none that is what the folder holds."""
    held = found.held
    try:
        manifest = reader.documents.manifest(held.version)
    except TensorDeltaError:  # it may be gone
        return True
    if (held.layout, held.fingerprint) == (manifest.layout, manifest.fingerprint):
        return True
    same = reader.held(found.state(folder), held.tensor_sums)
    return same is not None and same.layout_digest is not None


def _check_same(held: Holding, reader: Reader, manifest: Manifest, folder: Folder) -> None:
    """Check that the chain still has the held version under its number."""
    if held.fingerprint != manifest.fingerprint or Layout(held.tensors) != reader.documents.layout(manifest.layout):
        raise WrongBaseError(
            f"holds version {held.version} with fingerprint {held.fingerprint}, the chain's has {manifest.fingerprint}",
            object=str(folder.path),
            rule="TD-RDR-003",
            advice="The chain was rewritten under its old id, or the folder's record was altered: remove the folder"
            " and pull again.",
        )


def _other_files(held: Holding, reader: Reader, manifest: Manifest) -> list[str]:
    """Names of the files that the record has otherwise than the chain has them."""
    files = {name: file.sha256 for name, file in held.files.items() if not file.shard}
    plain = {pack.name for pack in manifest.packs if pack.content == TENSORS}
    indexed = any(name.endswith(INDEX_SUFFIX) for name in files)
    # Else which tensor is in which shard is known only after the packs, as large as the model, are read.
    if files == {file.name: file.sha256 for file in manifest.files} and not indexed and plain == {*held.shards}:
        return []
    layout = FileLayout.of(reader, manifest)
    return sorted(
        {name for name, _ in layout.digests.items() ^ {(name, file.sha256) for name, file in held.files.items()}}
        | set(layout.shards).symmetric_difference(held.shards)
    )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "")
