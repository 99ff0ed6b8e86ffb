"""Watching a folder that gets a Hugging Face checkpoint per version, and publishing each (SPEC.md appendix C.6).

Such folders are what prime-rl (`step_4`, with a file STABLE), AReaL (`weight_update_v4`), slime's full mode
(`weight_v000004`) and the Trainer of transformers (`checkpoint-4`) write.
"""

from __future__ import annotations

import re
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from ..chain import Chain
from ..errors import ConflictError, IntegrityError, MissingError, StoreError, TensorDeltaError
from ..live.watch import Pace
from ..read.history import Published
from .format import FORMAT, VERSION

#: The format's name in annotations.
NAME = "folder"
#: Seconds for which nothing of a folder without a marker may have changed.
SETTLE = 10.0

_RULE = "appendix C.6"
_FOLDER = re.compile(r"(?P<text>(?!tmp)[A-Za-z_](?:.*?[^0-9])?)(?P<number>[0-9]{1,12})")


@dataclass(frozen=True)
class Watched:
    """A folder that was published.

    Attributes:
        id: its name.
        published: the version.
        seconds: how long reading and publishing took.
    """

    id: str
    published: Published
    seconds: float


class Watcher:
    """Publishes the checkpoints that appear in a folder, in the order of the numbers at the end of their names.

    One thread uses it. A checkpoint counts when its marker is there; without a marker, when nothing in its folder has
    changed for some seconds. One without a marker that cannot be read is waited for until the next one has begun.

    Args:
        folder: in which the checkpoints' folders appear.
        chain: to publish to.
        marker: the name of a file that the trainer writes into a checkpoint's folder last; None for none.
        settle: seconds for which nothing of a folder without a marker may have changed.
        publishing: further arguments of `Chain.publish`.
        say: called with what the user has to know.

    Raises:
        ConflictError: the chain's newest version is not of such a folder.
    """

    def __init__(
        self,
        folder: Path,
        chain: Chain,
        *,
        marker: str | None = None,
        settle: float = SETTLE,
        publishing: Mapping[str, Any] | None = None,
        say: Callable[[str], object] = lambda text: None,
    ) -> None:
        self._folder, self._chain, self._marker, self._settle = folder, chain, marker, settle
        self._publishing = dict(publishing or {})
        self._say = say
        self._seen: dict[str, tuple[object, float]] = {}
        self._refused: tuple[Path, object, TensorDeltaError] | None = None
        self._after = -1
        newest = chain.newest()
        if newest is not None:
            annotations = chain.manifest(newest).annotations
            match = _FOLDER.fullmatch(annotations.get(VERSION, ""))
            if annotations.get(FORMAT) != NAME or match is None:
                raise ConflictError(
                    f"its version {newest} was not published from a folder that was watched",
                    object=chain.address,
                    rule=_RULE,
                    advice=f"Watch into a chain of its own; or publish that version with {FORMAT}={NAME} and "
                    f"{VERSION}=NAME, the name of its folder.",
                )
            self._after = int(match["number"])

    def ready(self) -> list[Path]:
        """The checkpoints that can be published now, in order; those after one that is not ready wait for it.

        Raises:
            ConflictError: the names of folders are of several kinds.
            TensorDeltaError: one without a marker cannot be read, and the next one has begun.
        """
        kinds: dict[str, dict[int, Path]] = {}
        with suppress(FileNotFoundError):
            for path in self._folder.iterdir():
                match = _FOLDER.fullmatch(path.name)
                if match is not None and path.is_dir():
                    same = kinds.setdefault(match["text"], {}).setdefault(int(match["number"]), path)
                    if same != path:
                        raise self._two_kinds(same, path)
        begun = [found for found in kinds.values() if any(map(self._has_begun, found.values()))]
        if len(begun) > 1:
            raise self._two_kinds(*(next(iter(found.values())) for found in begun[:2]))
        found = begun[0] if begun else {}
        ready: list[Path] = []
        for number in sorted(found):
            if number <= self._after:
                continue
            if self._refused is not None and self._refused[0] == found[number]:
                if _stamps(found[number]) != self._refused[1]:
                    self._refused = None
                elif any(later > number and self._has_begun(path) for later, path in found.items()):
                    raise self._refused[2]
                else:
                    break
            if not self._is_ready(found[number]):
                break
            ready.append(found[number])
        return ready

    def _two_kinds(self, one: Path, other: Path) -> ConflictError:
        return ConflictError(
            f"has checkpoints of two kinds: {one.name} and {other.name}",
            object=str(self._folder),
            rule=_RULE,
            advice="Watch a folder that gets the checkpoints of one run alone.",
        )

    def _has_begun(self, path: Path) -> bool:
        """True for a folder with weights, or with the marker."""
        return any(path.glob("*.safetensors")) or (self._marker is not None and (path / self._marker).exists())

    def _is_ready(self, path: Path) -> bool:
        if self._marker is not None:
            return (path / self._marker).exists()
        stamps = _stamps(path)
        known, since = self._seen.get(path.name, (None, 0.0))
        if stamps != known:
            self._seen[path.name] = stamps, monotonic()
            return False
        return bool(stamps) and monotonic() - since >= self._settle

    def publish(self, path: Path) -> Watched | None:
        """Publish one checkpoint; None where its folder is gone.

        Raises:
            TensorDeltaError: it is no checkpoint, or breaks a rule; nothing was published.
        """
        started = time.perf_counter()
        match = _FOLDER.fullmatch(path.name)
        assert match is not None
        number = int(match["number"])
        newest = self._chain.newest()
        version = number if newest is None or number > newest else None
        annotations = {FORMAT: NAME, VERSION: path.name, "step": str(number)}
        try:
            published = self._chain.publish(path, version=version, annotations=annotations, **self._publishing)
        except (MissingError, IntegrityError, FileNotFoundError):
            if path.exists():
                raise
            self._after = number  # the trainer keeps few of its checkpoints
            return None
        self._after = number
        self._seen.pop(path.name, None)
        return Watched(path.name, published, time.perf_counter() - started)

    def follow(
        self, *, poll: float = 1.0, timeout: float | None = None, stop: threading.Event | None = None
    ) -> Iterator[Watched]:
        """Publish each checkpoint that appears.

        Args:
            poll: approximate seconds between two looks; up to four times that while nothing appears.
            timeout: seconds without a new checkpoint before `TimeoutError`; None waits for ever.
            stop: ends the iteration when set.

        Raises:
            TimeoutError: no checkpoint appeared in time.
            StoreError: the store kept failing until the time was up.
            TensorDeltaError: see `ready` and `publish`; what was published before stays.
        """
        stop = stop or threading.Event()
        pace, since = Pace(poll), monotonic()
        while not stop.is_set():
            failure: StoreError | None = None
            try:
                for path in self.ready():
                    if stop.is_set():
                        return
                    watched = self._publish_settled(path)
                    if self._refused is not None:
                        break
                    if watched is not None:
                        yield watched
                        pace.news()
                        since = monotonic()
                pause = pace.idle()
            except StoreError as error:
                failure, pause = error, pace.failed()
            if timeout is not None:
                left = since + timeout - monotonic()
                if left <= 0:
                    raise failure or TimeoutError(f"no checkpoint appeared within {timeout:g} seconds")
                pause = min(pause, left)
            stop.wait(pause)

    def _publish_settled(self, path: Path) -> Watched | None:
        """Publish a checkpoint; where only time says that it is whole, one that cannot be read is waited for."""
        stamps = _stamps(path)
        try:
            return self.publish(path)
        except TensorDeltaError as error:
            if self._marker is not None or isinstance(error, ConflictError):
                raise
            self._refused = path, stamps, error
            self._say(f"waiting for {path.name}, which cannot be read: {error.reason}")
            return None


def _stamps(path: Path) -> dict[str, tuple[int, int]]:
    """Size and time of all files of a folder."""
    found: dict[str, tuple[int, int]] = {}
    with suppress(FileNotFoundError):
        for each in path.rglob("*"):
            with suppress(FileNotFoundError):
                status = each.lstat()
                if stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode):
                    found[str(each)] = status.st_size, status.st_mtime_ns
    return found
