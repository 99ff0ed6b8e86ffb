"""What the servers that stand in for vLLM and SGLang share: HTTP, a port that outlives them, and what goes wrong."""

from __future__ import annotations

import copy
import json
import socket
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

import tensordelta as td

#: A status and a JSON object.
Reply = tuple[int, dict[str, Any]]


class Gone(Exception):
    """The server ends before it replies."""


class Weights:
    """An engine's weights, which take versions from a chain as the plug-ins do: from the version that they are.

    Attributes:
        state: the words; they begin as no version that is known.
    """

    def __init__(self, arrays: dict[str, Any]) -> None:
        self.state = td.State.from_arrays(copy.deepcopy(arrays))
        self._chain: td.Chain | None = None

    def meet(self, address: str) -> None:
        """Open a chain and find the version that the weights are; the same chain once more is no work."""
        chain = td.open(address, threads=1)
        if self._chain is not None:
            if chain.id != self._chain.id:
                raise RuntimeError(f"this engine follows chain {self._chain.id}, not {chain.id}")
            return
        for version in chain.versions():
            if chain.load(version).equals(self.state):
                self.state, self._chain = chain.load(version), chain
                return
        raise RuntimeError("the loaded weights are no version of the chain")

    def newest(self) -> int | None:
        """The newest version of the chain."""
        return None if self._chain is None else self._chain.versions()[-1]

    def take(self, version: int) -> None:
        """Go to a version; the one that the weights are is no work."""
        if self._chain is None:
            raise RuntimeError("no chain was opened")
        if self.state.version != version:
            self._chain.prepare(self.state, version).apply()


class EngineServer:
    """Serves one engine on a port of its own; a context.

    Attributes:
        asked: the orders, by route, in their order.
        faults: a route -> what to call before it is served, once each, in their order.
        key: what requests have to bear, if anything.
    """

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.asked: list[str] = []
        self.faults: dict[str, list[Callable[[], object]]] = {}
        self.key: str | None = None
        self.lock = threading.Lock()  # an engine does one thing after another
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Start anew, as a process does that forgets everything."""
        self.reset()
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler())
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            server.shutdown()
            server.server_close()
            self._thread.join()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def fail(self, route: str, *faults: Callable[[], object]) -> None:
        self.faults.setdefault(route, []).extend(faults)

    def reset(self) -> None:
        raise NotImplementedError

    def serve(self, method: str, route: str, query: dict[str, str], body: Any) -> Reply:
        raise NotImplementedError

    def refuse(self, error: Exception) -> Reply:
        raise NotImplementedError

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def _answer(self) -> None:
                parts = urlsplit(self.path)
                route = parts.path.strip("/")
                data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
                try:
                    if server.key and self.headers.get("Authorization") != f"Bearer {server.key}":
                        status, reply = 401, {"error": "Unauthorized"}
                    else:
                        status, reply = server._serve(self.command, route, query, data)
                except Gone:
                    self.close_connection = True
                    return
                text = json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

        return Handler

    def _serve(self, method: str, route: str, query: dict[str, str], data: bytes) -> Reply:
        if method == "POST" and route != "collective_rpc":  # a question
            self.asked.append(route)
        waiting = self.faults.get(route, [])
        try:
            if waiting:
                waiting.pop(0)()  # outside the lock: others may be served meanwhile
            with self.lock:
                return self.serve(method, route, query, json.loads(data) if data else None)
        except Gone:
            raise
        except Exception as error:
            return self.refuse(error)


def raising(error: Exception) -> Callable[[], object]:
    """A fault that is an error of the engine."""

    def fault() -> None:
        raise error

    return fault
