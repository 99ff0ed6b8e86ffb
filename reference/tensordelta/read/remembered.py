"""What this user has read with trusted keys, in the cache folder of this machine.

`held/CHAIN/VERSION` is the newest version of a signed chain that this user has held, so that a fresh folder is not
given an older one; the file says layout and fingerprint. A version is the name of a file, so that of two processes none
lowers what the other has noted.

`pulled/FOLDER` is a folder that this user has pulled into; the file has the digest of the record that the last pull
left there, so that a folder that others prepared is not taken for one of this user.
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
#: The same, for folders that were pulled to.
PULLED = "pulled"
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
        self._folder(FOLDER)

    def _folder(self, *names: str) -> Path | None:
        try:
            return cache_folder(*names) if self._works else None
        except TensorDeltaError:
            raise
        except OSError as error:
            self._fails(error)
            return None

    def _fails(self, error: OSError) -> None:
        self._works = False
        _LOG.warning("what was read of signed chains is not remembered for this user: %s", error)

    def newest(self, chain: str) -> Applied | None:
        """The newest version held of a chain; None if none is remembered."""
        folder = self._folder(FOLDER, chain)
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
        folder = self._folder(FOLDER, applied.chain)
        if folder is None:
            return
        versions = _versions(folder)
        if versions and not back and versions[-1] >= applied.version:
            return
        said = f"{applied.layout} {applied.fingerprint}\n"
        if applied.version not in versions and not self._write(folder / _name(applied.version), said):
            return
        for version in versions:
            if version < applied.version or (back and version > applied.version):
                with suppress(OSError):
                    (folder / _name(version)).unlink()

    def has_left(self, folder: str, record: str) -> bool:
        """True where the last pull left the record of this digest in a folder.

        Args:
            folder: what identifies it, the name of a file.
            record: the digest.
        """
        place = self._folder(PULLED)
        if place is None:
            return False
        with suppress(OSError), (place / folder).open("rb") as file:
            return file.read(_MAX) == f"{record}\n".encode()
        return False

    def note_folder(self, folder: str, record: str) -> None:
        """Note the digest of the record that a pull left in a folder."""
        place = self._folder(PULLED)
        if place is not None:
            self._write(place / folder, f"{record}\n")

    def _write(self, path: Path, content: str) -> bool:
        temporary = path.parent / f".{secrets.token_hex(8)}"
        try:
            temporary.write_text(content)
            os.replace(temporary, path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            self._fails(error)
            return False
        return True


def _name(version: int) -> str:
    return f"{version:0{_DIGITS}d}"


def _versions(folder: Path) -> list[int]:
    try:
        names = [each.name for each in folder.iterdir()]
    except OSError:  # nothing was noted yet
        return []
    return sorted(int(name) for name in names if len(name) == _DIGITS and name.isascii() and name.isdecimal())
