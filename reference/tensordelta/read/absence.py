"""What to say where there is no chain, or no such version: mostly another place was meant."""

from __future__ import annotations

from pathlib import Path

from ..errors import MissingError
from ..format.names import CHAIN
from ..stores import FolderStore, Store

_CHECK = "Check the address, or publish a first version there."


def no_chain(store: Store) -> MissingError:
    """The error for an address without a chain, which says what is there instead."""
    instead, advice = _instead(store.root) if isinstance(store, FolderStore) else ("", _CHECK)
    reason = f"there is no chain at {store.address}{instead}"
    return MissingError(reason, object=CHAIN, rule="TD-OBJ-009", advice=advice)


def no_version(version: int, store: Store | None, *, object: str) -> MissingError:
    """The error for a version that a chain lacks."""
    where = "" if store is None else f" in {store.address}"
    advice = "Choose one that `log` lists; a collector may have dropped this one."
    return MissingError(f"there is no version {version}{where}", object=object, rule="TD-OBJ-008", advice=advice)


def _instead(root: Path) -> tuple[str, str]:
    """What a path is that is no chain, and what to do."""
    before, at, version = str(root).rpartition("@")
    if not root.exists():
        if at and (Path(before) / CHAIN).is_file():
            return "", f"Name the chain, {before}, and the version by itself: `show {before} {version}`."
        return "", _CHECK
    if not root.is_dir():
        return ", which is a file", "Name the folder of a chain; `publish CHAIN FILE` makes one of a checkpoint."
    try:
        names = sorted(each.name for each in root.iterdir())
    except OSError:
        return "", _CHECK
    if ".tensordelta" in names:
        return ", which is a folder that a pull made", "Name the chain that was pulled; `verify` checks such a folder."
    if any(name.endswith(".safetensors") for name in names):
        return ", which is a checkpoint", f"Name a chain; `publish CHAIN {root}` makes one of a checkpoint."
    chains = [name for name in names if (root / name / CHAIN).is_file()]
    if chains:
        return (
            ", but there are chains in it",
            f"Name one of them: {', '.join(map(str, map(root.joinpath, chains[:5])))}.",
        )
    return (", which has other contents" if names else ", which is an empty folder"), _CHECK
