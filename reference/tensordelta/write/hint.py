"""The hint: latest.json, which names the newest version and the shortcuts that followers try (SPEC.md section 4.11).

Several may overwrite it: who publishes, who makes shortcuts, who collects. Nothing depends on it but the time that
readers need; one that lags behind is put again by the one who finds a newer version.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import chain as joined
from itertools import zip_longest

from ..errors import ConflictError, StoreError
from ..format import strict_json
from ..format.documents import MAX_HINTED, LatestDocument
from ..format.names import LATEST, ShortcutName, shortcut_stem
from ..read.reader import Reader

_LOG = logging.getLogger("tensordelta")


def read_hint(reader: Reader) -> LatestDocument | None:
    """The hint as it is; None where it is absent, breaks a rule or names another chain. Raises StoreError."""
    with suppress(ConflictError):
        return reader.documents.hint()
    return None


def encode_hint(chain: str, version: int, shortcuts: Iterable[ShortcutName]) -> bytes:
    """The bytes of a hint.

    Args:
        chain: the chain id.
        version: the newest version.
        shortcuts: those that stay; of more than a hint may name, the newest of each length.
    """
    names = [shortcut_stem(name) for name in _chosen(shortcuts)]
    return strict_json.encode(LatestDocument(strict_json.VERSION, chain, version, names))


def put_hint(reader: Reader, version: int, shortcuts: Iterable[ShortcutName]) -> None:
    """Overwrite the hint of a reader's chain; see `encode_hint`. Where that fails, readers may list."""
    try:
        reader.store.put(LATEST, [encode_hint(reader.chain, version, shortcuts)])
    except OSError as fault:
        _LOG.warning("version %d is published, but %s was not put: %s", version, LATEST, fault)


def renew_hint(reader: Reader, change: Callable[[Sequence[ShortcutName]], Sequence[ShortcutName]]) -> None:
    """Have the hint name other shortcuts, whoever publishes meanwhile. A failure of the store costs readers time only.

    Args:
        reader: of the chain.
        change: gives the new names for the old ones.
    """
    try:
        hint = read_hint(reader)
        if hint is None:  # the next version brings one
            return
        names, version = change(hint.names), hint.version
        while list(names) != hint.names:
            put_hint(reader, version, names)
            newer = reader.documents.versions(after=version)
            if not newer:
                return
            version = newer[-1]  # its writer's hint may have been overwritten
    except StoreError as fault:
        _LOG.warning("%s was not put anew: %s", LATEST, fault)


def _chosen(shortcuts: Iterable[ShortcutName]) -> list[ShortcutName]:
    """The newest shortcuts of each length, as many as a hint may name; lengths within a factor of two count as one."""
    lengths: dict[int, list[ShortcutName]] = {}
    for name in sorted(set(shortcuts), key=lambda each: (-each.version, each.base or -1, each.tag or "")):
        lengths.setdefault(0 if name.base is None else (name.version - name.base).bit_length(), []).append(name)
    turns = joined.from_iterable(zip_longest(*lengths.values()))
    kept = [name for name in turns if name is not None][:MAX_HINTED]
    return sorted(kept, key=shortcut_stem)
