"""What goes wrong with requests, on purpose; and a proxy that makes it go wrong before any server of this machine."""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import unquote, urlsplit

ALWAYS = 1 << 30


@dataclass
class Fault:
    """What goes wrong with a request.

    Attributes:
        match: a part of "METHOD path?query"; requests without it are not touched.
        times: how many requests are touched.
        skip: how many are let pass before.
        status, headers: answer with this status and these headers, and do nothing.
        drop: close the connection: "before" anything is done, or "after" it was.
        delay: seconds to wait before anything is done.
        bend: changes the body of an answer.
        cut: bytes of a body after which the connection ends, although more were announced.
        act: called before anything is done.
        failed: of a batch of the Hub, paths with this in them are refused while the others are done.
        hide: of a listing of the Hub, paths with this in them are left out.
    """

    match: str
    times: int = 1
    skip: int = 0
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    drop: str | None = None
    delay: float = 0.0
    bend: Callable[[bytes], bytes] | None = None
    cut: int | None = None
    act: Callable[[], object] | None = None
    failed: str | None = None
    hide: str | None = None


class Faults:
    """The requests to a server, and what goes wrong with them; several threads may ask.

    Attributes:
        requests: what was asked for, as "METHOD path".
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, match: str, **what: Any) -> Fault:
        """Have requests go wrong; of several faults the first one that matches and is not used up counts."""
        fault = Fault(match, **what)
        self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Have nothing go wrong, and forget the requests."""
        self._faults.clear()
        self.requests.clear()

    def count(self, match: str) -> int:
        """How many requests had this in their "METHOD path"."""
        return sum(match in request for request in self.requests)

    def take(self, method: str, path: str) -> Fault:
        """Note a request; gives what goes wrong with it."""
        asked = unquote(f"{method} {path.lstrip('/')}")
        with self._lock:
            self.requests.append(asked.partition("?")[0])
            for fault in self._faults:
                if fault.times > 0 and fault.match in asked:
                    if fault.skip > 0:
                        fault.skip -= 1
                        continue
                    fault.times -= 1
                    return fault
        return Fault("")


class Proxy:
    """Stands before an HTTP server and lets requests through, but for faults; a context.

    Args:
        upstream: the server's address.

    Attributes:
        faults: what goes wrong.
        most: the largest number of requests that waited for an answer at once.
    """

    def __init__(self, upstream: str) -> None:
        self.faults = Faults()
        self.most = 0
        self._running = 0
        self._lock = threading.Lock()
        self._upstream = urlsplit(upstream).netloc
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def address(self) -> str:
        """What clients have to take for the server's address."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _enter(self, by: int) -> None:
        with self._lock:
            self._running += by
            self.most = max(self.most, self._running)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def _pass(self) -> None:
                fault = proxy.faults.take(self.command, self.path)
                proxy._enter(1)
                self._waiting = True
                try:
                    self._answer(fault)
                except (ConnectionError, TimeoutError):  # the client has gone
                    self.close_connection = True
                finally:
                    self._leave()

            def _leave(self) -> None:
                if self._waiting:
                    self._waiting = False
                    proxy._enter(-1)

            def _answer(self, fault: Fault) -> None:
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                time.sleep(fault.delay)
                if fault.act is not None:
                    fault.act()
                if fault.drop == "before":
                    self.close_connection = True
                elif fault.status is not None:
                    self._send(fault.status, b"out of order", fault.headers, None)
                else:
                    upstream = http.client.HTTPConnection(proxy._upstream, timeout=30)
                    try:
                        upstream.request(self.command, self.path, data, dict(self.headers))
                        answer = upstream.getresponse()
                        body = answer.read()
                    finally:
                        upstream.close()
                    if fault.drop == "after":
                        self.close_connection = True
                        return
                    if fault.bend is not None:
                        body = fault.bend(body)
                    length = {} if self.command != "HEAD" else {"Content-Length": answer.headers["Content-Length"]}
                    left_out = ("connection", "content-length", "transfer-encoding", "date", "server")
                    headers = {name: value for name, value in answer.headers.items() if name.lower() not in left_out}
                    self._send(answer.status, body, headers | length, fault.cut)

            def _send(self, status: int, body: bytes, headers: dict[str, str], cut: int | None) -> None:
                self._leave()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if "Content-Length" not in headers:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body if cut is None else body[:cut])
                if cut is not None:
                    self.close_connection = True

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _pass  # noqa: N815 - the names that http.server looks for

            def log_message(self, *_: object) -> None:
                pass

        return Handler
