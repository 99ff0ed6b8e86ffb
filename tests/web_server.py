"""A folder behind plain HTTP, as a CDN serves it: GET alone, with a cache that may hold what is no longer so."""

from __future__ import annotations

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self

from faults import Faults


class Web:
    """Serves a folder; a context.

    Args:
        folder: what is served, under its own name.
        ranges: answer to ranges, as most servers do.
        tags: send entity tags.

    Attributes:
        faults: what goes wrong, and what was asked for, as "GET path".
        cached: bodies that are served in place of files, by name below the folder; None for a file that is absent.
        elsewhere: where requests are redirected to, by name below the folder.
        statuses: how many answers had each status.
        connections: how many connections were opened.
    """

    def __init__(self, folder: Path, *, ranges: bool = True, tags: bool = True) -> None:
        self.faults = Faults()
        self.cached: dict[str, bytes | None] = {}
        self.elsewhere: dict[str, str] = {}
        self.statuses: dict[int, int] = {}
        self.connections = 0
        self._folder, self._ranges, self._tags = folder, ranges, tags
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def address(self) -> str:
        """The folder's URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{self._folder.name}"

    @property
    def asked(self) -> list[str]:
        """What was asked for since the last `clear`, by name below the folder."""
        return [each.removeprefix(f"GET {self._folder.name}/") for each in self.faults.requests]

    def clear(self) -> None:
        """Forget what was asked for."""
        self.faults.clear()
        self.statuses.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _body(self, name: str) -> bytes | None:
        if name in self.cached:
            return self.cached[name]
        path = self._folder / name
        return path.read_bytes() if path.is_file() else None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def setup(self) -> None:
                web.connections += 1
                super().setup()

            def do_GET(self) -> None:
                fault = web.faults.take(self.command, self.path)
                if fault.act is not None:
                    fault.act()
                name = self.path.removeprefix(f"/{web._folder.name}/")
                body = web._body(name)
                if fault.drop is not None:
                    self.close_connection = True
                elif fault.status is not None:
                    self._send(fault.status, b"out of order", fault.headers)
                elif name in web.elsewhere:
                    self._send(302, b"elsewhere", {"Location": web.elsewhere[name]})
                elif body is None:
                    self._send(404, b"there is no such file", {})
                else:
                    self._file(body, fault.cut)

            def _file(self, body: bytes, cut: int | None) -> None:
                tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
                headers = {"ETag": tag} if web._tags else {}
                if self.headers.get("If-None-Match") == tag:
                    self._send(304, b"", headers)
                    return
                asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
                if asked is None or not web._ranges:
                    self._send(200, body, headers, cut)
                    return
                first, last = int(asked[1]), min(int(asked[2]), len(body) - 1)
                if first >= len(body):
                    self._send(416, b"", {"Content-Range": f"bytes */{len(body)}"})
                    return
                headers["Content-Range"] = f"bytes {first}-{last}/{len(body)}"
                self._send(206, body[first : last + 1], headers, cut)

            def _send(self, status: int, body: bytes, headers: dict[str, str], cut: int | None = None) -> None:
                web.statuses[status] = web.statuses.get(status, 0) + 1
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if status != 304:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body if cut is None else body[:cut])
                self.close_connection = self.close_connection or cut is not None

            def log_message(self, *_: object) -> None:
                pass

        return Handler
