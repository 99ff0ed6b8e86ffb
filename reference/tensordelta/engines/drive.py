"""Bringing servers forward as a chain grows (SPEC.md section 9.3)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic

from ..chain import Chain
from ..errors import StoreError
from ..format.names import MAX_VERSION
from .errors import ServerError, ServerSetupError, ServerUnavailableError
from .server import Served, Server

_LOG = logging.getLogger("tensordelta")

#: Attempts in all to bring a server to one version, while it can be reached.
_TRIES = 4
#: Seconds between two attempts of `update_servers`.
_AGAIN = 1.0


def follow_server(
    chain: Chain,
    server: Server,
    *,
    poll: float = 1.0,
    timeout: float | None = None,
    until: int | None = None,
    stop: threading.Event | None = None,
) -> Iterator[Served]:
    """Keep a server at the newest version of a chain; yields the result of each update.

    Versions between two looks are skipped. A server that does not answer is waited for; one that was started again,
    with older weights, is brought forward once more; one that refuses a version is asked four times.

    Args:
        chain: the chain; only its documents are read here, the server reads the rest.
        server: the server, which this thread alone uses meanwhile.
        poll, timeout, until, stop: see `Chain.follow`.

    Raises:
        TimeoutError: no newer version was published in time.
        ServerError: the server cannot be driven, or refused a version; or it did not answer until the time was up.
        TensorDeltaError, StoreError, ValueError: see `Chain.follow`.

    Example:
        >>> for served in follow_server(chain, VllmServer(url, chain.address)):     # doctest: +SKIP
        ...     print(served.version, served.pause)
    """
    reached: int | None = None
    refused: tuple[int, int] = (-1, 0)  # a version, and how often the server has refused it
    absent: ServerUnavailableError | None = None

    def known() -> int | None:
        nonlocal reached
        try:
            server.recover()
            # Until the server has met the chain, its version may be of another one.
            reached = server.version() if server.met else None
        except ServerSetupError:
            raise
        except ServerError as error:
            _LOG.debug("looking at the server: %s", error)
        return reached

    def go(version: int) -> Served | None:
        nonlocal absent, refused
        try:
            served = server.update(version, at_most=MAX_VERSION if until is None else until)
        except ServerUnavailableError as error:
            if absent is None:
                _LOG.warning("waiting for the server: %s", error)
            absent = error
            return None
        except ServerError:
            refused = version, refused[1] + 1 if refused[0] == version else 1
            raise
        absent = None
        return served

    def passing(error: Exception) -> bool:
        if isinstance(error, ServerError):
            return not isinstance(error, ServerSetupError) and refused[1] < _TRIES
        return isinstance(error, StoreError)

    try:
        yield from chain.pursue(go, known=known, passing=passing, poll=poll, timeout=timeout, until=until, stop=stop)
    except TimeoutError:
        if absent is not None:
            raise absent from None
        raise


def update_servers(servers: Sequence[Server], version: int, *, within: float = 300.0) -> list[Served]:
    """Bring several servers to a version, all at once.

    Args:
        servers: the servers.
        version: a version of their chain.
        within: seconds for which a server is asked again that does not answer, or refuses.

    Raises:
        ServerError: a server could not be brought there; the others were, or were tried.
    """
    until = monotonic() + within

    def update(server: Server) -> Served:
        while True:
            try:
                return server.update(version)
            except ServerSetupError:
                raise
            except ServerError as error:
                if monotonic() + _AGAIN >= until:
                    raise
                _LOG.warning("%s", error)
                time.sleep(_AGAIN)

    with ThreadPoolExecutor(max(1, len(servers)), "tensordelta-server") as pool:
        updates = [pool.submit(update, server) for server in servers]
    return [each.result() for each in updates]
