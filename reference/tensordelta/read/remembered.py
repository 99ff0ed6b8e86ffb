"""The newest version of each signed chain that this user has held, so that a fresh folder is not given an older one.

It lies in the cache folder of this machine: `held/CHAIN/VERSION`, a file that says layout and fingerprint. A version is
the name of a file, so that of two processes none lowers what the other has noted.
"""

from __future__ import annotations

import logging
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..errors import TensorDeltaError
from ..stores import cache_folder

_LOG = logging.getLogger("tensordelta")

#: Its folder in the cache folder.
FOLDER = "held"
#: Digits of a version in the name of its file.
_DIGITS = 12
_MAX = 200


class Applied(NamedTuple):
    """A version that was applied.

    Attributes:
        chain, version: which.
        layout, fingerprint: those in its manifest; None where they are not remembered.
    """

    chain: str
    version: int
    layout: str | None = None
    fingerprint: str | None = None


class Remembered:
    """Reads and writes what this user has held. Threads and processes may share it.

    Where the cache folder cannot be used nothing is remembered, which is logged.

    Raises:
        UntrustedError: other users can write to the cache folder.
    """

    def __init__(self) -> None:
        self._works = True
        self._folder("")

    def _folder(self, chain: str) -> Path | None:
        try:
            return cache_folder(FOLDER, *([chain] if chain else [])) if self._works else None
        except TensorDeltaError:
            raise
        except OSError as error:
            self._fails(error)
            return None

    def _fails(self, error: OSError) -> None:
        self._works = False
        _LOG.warning("what is held of signed chains is not remembered for this user: %s", error)

    def newest(self, chain: str) -> Applied | None:
        """The newest version held of a chain; None if none is remembered."""
        folder = self._folder(chain)
        versions = [] if folder is None else _versions(folder)
        if folder is None or not versions:
            return None
        said: list[str] = []
        # A newer one may have replaced it, or a loss of power emptied it.
        with suppress(OSError, UnicodeDecodeError), (folder / _name(versions[-1])).open("rb") as file:
            said = file.read(_MAX).decode().split()
        return Applied(chain, versions[-1], *said) if len(said) == 2 else Applied(chain, versions[-1])

    def note(self, applied: Applied, *, back: bool) -> None:
        """Note that a version was held.

        Args:
            applied: the version.
            back: the user has allowed to go back, so that newer ones are forgotten.
        """
        folder = self._folder(applied.chain)
        if folder is None:
            return
        versions = _versions(folder)
        if versions and not back and versions[-1] >= applied.version:
            return
        if applied.version not in versions:
            temporary = folder / f".{secrets.token_hex(8)}"
            try:
                temporary.write_text(f"{applied.layout} {applied.fingerprint}\n")
                os.replace(temporary, folder / _name(applied.version))
            except OSError as error:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)
                self._fails(error)
                return
        for version in versions:
            if version < applied.version or (back and version > applied.version):
                with suppress(OSError):
                    (folder / _name(version)).unlink()


def _name(version: int) -> str:
    return f"{version:0{_DIGITS}d}"


def _versions(folder: Path) -> list[int]:
    try:
        names = [each.name for each in folder.iterdir()]
    except OSError:  # nothing was noted yet
        return []
    return sorted(int(name) for name in names if len(name) == _DIGITS and name.isascii() and name.isdecimal())
