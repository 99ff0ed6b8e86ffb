"""What an update of a server is, whichever engine it has: pause, session, new weights, resume."""

from __future__ import annotations

import logging
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Any

from ..format.names import MAX_VERSION
from ..stores import absolute
from ..tables import as_facts
from .client import Client
from .errors import ServerError, ServerUnavailableError

_LOG = logging.getLogger("tensordelta")

#: Seconds between two looks while another driver is at work.
_AGAIN = 0.5
#: What to do about a server that could not be resumed.
_LEFT_PAUSED = "It could not be resumed: look whether it runs, and resume it."


@dataclass(frozen=True, slots=True)
class Served:
    """The result of an update of a server.

    Attributes:
        version: the version that the server serves now.
        seconds: duration, with waiting for another driver.
        pause: seconds for which the server generated nothing; None if it served the version already.
    """

    version: int
    seconds: float
    pause: float | None


@as_facts.register
def _(served: Served) -> dict[str, object]:
    return {"version": served.version, "seconds": served.seconds, "pause": served.pause}


@as_facts.register
def _(error: ServerError) -> dict[str, object]:
    return {"error": "server", "object": error.url, "rule": None, "message": str(error)}


class Server(ABC):
    """An inference server that a chain's versions are brought to; one thread at a time may use it.

    Several drivers may bring one server forward, as when an old one was not ended: whichever comes second waits, and
    finds the version served. A driver that was killed may leave the server paused, or in the middle of an update:
    after `patience` seconds the next one goes on from there. So a server that others pause for longer than that is
    resumed; a server that sleeps is left alone.

    Args:
        url: the server's address, `http://host:port`.
        chain: the chain's address as the server's processes open it; the absolute path of a folder.
        key: the server's API key, if it asks for one.
        timeout: seconds for each reply; the first one may need a pass over all weights.
        patience: seconds for which another driver's pause is respected.
        options: more of how the server's processes follow the chain, as their plug-in has it.

    Raises:
        ValueError: the address is none of a server.
    """

    #: What to do where the server lacks a route.
    _missing: str

    def __init__(
        self,
        url: str,
        chain: str | os.PathLike[str],
        *,
        key: str | None = None,
        timeout: float = 600.0,
        patience: float = 60.0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self._client = Client(url, key=key, timeout=timeout, missing=self._missing)
        self.chain = absolute(chain)
        self.options = dict(options or {})
        self._patience = patience
        self._met = False
        self._paused_since: float | None = None

    @property
    def url(self) -> str:
        """The server's address."""
        return self._client.url

    @property
    def met(self) -> bool:
        """True once this object knows that the server follows this very chain, not another one."""
        return self._met

    def version(self) -> int | None:
        """The version that the server says it serves; None before its first update.

        Raises:
            ServerError: see `update`.
        """
        text = self.weight_version()
        return int(text) if text.isascii() and text.isdecimal() and int(text) <= MAX_VERSION else None

    def update(self, version: int, *, at_most: int | None = None) -> Served:
        """Bring the server to a version; requests that it works on wait meanwhile, and go on with the new weights.

        Args:
            version: the version.
            at_most: take a newer version instead, up to this one, where the server has prepared that one already.

        Raises:
            ServerUnavailableError: the server does not answer, or is asleep; nothing was begun.
            ServerSetupError: the server cannot be driven; `advice` says how to start it.
            ServerError: the server refused the update; it was resumed, and goes on serving the version before.
        """
        since = monotonic()
        self._is_paused()  # nobody may touch the weights of a server that sleeps
        if not self._met or self.version() is None:
            self._meet()
            self._met = True
        if self.version() != version:
            version = self._prepared(version, version if at_most is None else at_most)
        waiting = monotonic()
        while True:
            if self.version() == version:
                return Served(version, monotonic() - since, None)
            impatient = monotonic() - waiting >= self._patience
            if not (self._is_paused() and not impatient):
                pause = self._try(version, join=impatient)
                if pause is not None:
                    return Served(version, monotonic() - since, pause)
            time.sleep(min(_AGAIN, self._patience))

    def recover(self) -> None:
        """Resume the server if it has been paused since a call `patience` seconds ago, or before.

        Raises:
            ServerError: see `update`.
        """
        if not self._is_paused():
            self._paused_since = None
        elif self._paused_since is None:
            self._paused_since = monotonic()
        elif monotonic() - self._paused_since >= self._patience:
            _LOG.warning("%s has been paused for %.0f seconds, and is resumed", self.url, self._patience)
            self.resume()
            self._paused_since = None

    @abstractmethod
    def weight_version(self) -> str:
        """The free text by which the server names its weights."""

    @abstractmethod
    def pause(self) -> None:
        """Have the server keep its requests and generate nothing; what was cached of the old weights is dropped."""

    @abstractmethod
    def resume(self) -> None:
        """Have the server generate again."""

    def _meet(self) -> None:  # noqa: B027  not every server has to hear of the chain before the first version
        """Have the server open the chain, or see that it is the one that it follows."""

    def _prepared(self, version: int, at_most: int) -> int:
        """Wait, while the server serves, until it has prepared a version, where it can be asked.

        Returns:
            The version to take: a newer one, up to `at_most`, if the server has prepared that one instead.
        """
        return version

    @abstractmethod
    def _is_paused(self) -> bool:
        """True while another driver has paused the server, where it can be asked.

        Raises:
            ServerUnavailableError: it is asleep.
        """

    @abstractmethod
    def _begin(self) -> bool:
        """Begin a session; False if there is one."""

    @abstractmethod
    def _write(self, version: int) -> None:
        """In a session: have the server take a version, and end the session."""

    def _try(self, version: int, *, join: bool) -> float | None:
        """One update.

        Args:
            version: the version.
            join: take over a session that another driver has begun.

        Returns:
            Seconds of the pause; None if another driver is at work.

        Raises:
            ServerError: as `update`.
        """
        since = monotonic()
        try:
            self.pause()
        except ServerError as error:
            with suppress(ServerError):  # it may be paused all the same
                self.resume()
            if isinstance(error, ServerUnavailableError):
                raise
            raise _refused(error, version) from error
        with self._resumed(version):
            try:
                if not self._begin() and not join:
                    return None
                self._write(version)
            except ServerError as error:
                if not self._serves(version):
                    raise _refused(error, version) from error
        return monotonic() - since

    def _serves(self, version: int) -> bool:
        """True where another driver was faster, and has ended the session."""
        with suppress(ServerError):
            return self.version() == version
        return False

    @contextmanager
    def _resumed(self, version: int) -> Iterator[None]:
        """Resumes the server in the end, whatever happens."""
        try:
            yield
        except BaseException as error:
            try:
                self.resume()
            except ServerError:
                if isinstance(error, ServerError):
                    raise type(error)(error.url, error.operation, error.cause, _LEFT_PAUSED) from error
            raise
        try:
            self.resume()
        except ServerError as error:
            raise ServerError(self.url, f"resuming after version {version}", error.cause, _LEFT_PAUSED) from error


@contextmanager
def named_later() -> Iterator[None]:
    """A block that ends a session whose weights are written: an error of it says so."""
    try:
        yield
    except ServerUnavailableError:
        raise
    except ServerError as error:
        advice = "It has the new weights; what version it says that it serves is mended by the next attempt."
        raise type(error)(error.url, error.operation, error.cause, advice) from error


def _refused(error: ServerError, version: int) -> ServerError:
    """The error of an update in which a request failed."""
    kind, advice = type(error), error.advice
    if isinstance(error, ServerUnavailableError):  # but it was there when the update began
        kind, advice = ServerError, "It may have ended: look whether it runs, and what it serves."
    elif advice == ServerError.default_advice:
        advice = "Its log says more; until the next attempt it serves what it served before."
    return kind(error.url, f"the update to version {version}", f"{error.operation}: {error.cause}", advice)
