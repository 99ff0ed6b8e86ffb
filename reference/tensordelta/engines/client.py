"""JSON over HTTP with an inference server, and what its replies mean."""

from __future__ import annotations

import json
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from .errors import ServerError, ServerSetupError, ServerUnavailableError

#: Seconds for the reply to a question.
_QUESTION = 30.0
#: What gateways and servers answer that are not ready, or cannot reach the server behind them.
_UNAVAILABLE = (502, 503, 504)
#: Characters of a reply that is no JSON.
_EXCERPT = 300


class Client:
    """Asks one server, over a connection for each request. Threads may share a client.

    Args:
        url: the server's address, `http://host:port`; an ending `/v1` is left out.
        key: the API key that requests bear, if any.
        timeout: seconds for the reply to an order.
        missing: what to do where the server lacks a route.

    Raises:
        ValueError: the address is none of a server.
    """

    def __init__(self, url: str, *, key: str | None, timeout: float, missing: str) -> None:
        self.url = url.rstrip("/").removesuffix("/v1")
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"{url!r} is no address of a server; write http://HOST:PORT")
        self._key = key
        self._timeout = timeout
        self._missing = missing

    def get(self, route: str) -> dict[str, Any]:
        """What a route answers. Raises what `post` raises."""
        return self._ask("GET", route, None, _QUESTION)

    def post(self, route: str, body: object = None, **query: str) -> dict[str, Any]:
        """Post JSON.

        Returns:
            The reply; empty where it is no JSON object.

        Raises:
            ServerUnavailableError: there is no reply, or the server is not ready.
            ServerSetupError: there is no such route, or the key is refused.
            ServerError: the server answers with another error, whose message is the `cause`.
        """
        data = b"" if body is None else json.dumps(body).encode()
        return self._ask("POST", f"{route}?{urlencode(query)}" if query else route, data, self._timeout)

    def _ask(self, method: str, route: str, data: bytes | None, timeout: float) -> dict[str, Any]:
        headers = {"Content-Type": "application/json"} if data else {}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = Request(f"{self.url}/{route}", data, headers, method=method)
        operation = f"{method} /{route.partition('?')[0]}"
        try:
            with urlopen(request, timeout=timeout) as reply:
                return _json(reply.read())
        except HTTPError as error:
            with error:
                raise self._refused(operation, error.code, error.read()) from None
        except (HTTPException, OSError) as error:
            reason = error.reason if isinstance(error, URLError) else error
            raise ServerUnavailableError(self.url, operation, str(reason) or type(reason).__name__) from None

    def _refused(self, operation: str, status: int, reply: bytes) -> ServerError:
        text = reply[:_EXCERPT].decode(errors="replace").strip()
        cause = _message(_json(reply)) or f"status {status}: {text}".rstrip(": ")
        if status in _UNAVAILABLE:
            return ServerUnavailableError(self.url, operation, cause)
        if status in (404, 405):
            return ServerSetupError(self.url, operation, cause, self._missing)
        if status in (401, 403):
            return ServerSetupError(self.url, operation, cause, "Give the server's API key.")
        return ServerError(self.url, operation, cause)


def _json(reply: bytes) -> dict[str, Any]:
    try:
        found = json.loads(reply)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _message(found: dict[str, Any]) -> str:
    """The text of an error: in `error.message` or `error`, as vLLM has it; in `message` or `detail`, as others do."""
    error = found.get("error") or found.get("message") or found.get("detail") or ""
    if isinstance(error, dict):
        error = error.get("message") or error
    return str(error)
