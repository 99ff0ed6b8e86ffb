"""A folder behind plain HTTP on this machine: GET alone, no listing, and a log of what was asked for."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self


class _Quiet(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away is none of the server's matter."""


class Server:
    """Serves the files below a folder; a context.

    Args:
        folder: what is served.
        status: by name below the folder, the status that is answered in place of the file.

    Attributes:
        asked: what was asked for, by name below the folder; anything but a GET with its method before it.
        absent: those of them of which there was no file.
    """

    def __init__(self, folder: Path, status: Mapping[str, int]) -> None:
        self.asked: list[str] = []
        self.absent: list[str] = []
        self._folder, self._status = folder, status
        self._server = _Quiet(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        """The folder's URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{self._folder.name}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, path: str) -> tuple[int, bytes]:
        name = path.removeprefix(f"/{self._folder.name}/")
        self.asked.append(name)
        if name in self._status:
            return self._status[name], b"out of order"
        file = self._folder / name
        if file.is_file() and self._folder in file.resolve().parents:
            return 200, file.read_bytes()
        self.absent.append(name)
        return 404, b"not found"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                status, body = server._answer(self.path)
                tag = f'"{hashlib.sha256(body).hexdigest()[:16]}"'
                headers = {"ETag": tag, "Cache-Control": "no-cache", "Access-Control-Allow-Origin": "*"}
                asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
                if status == 200 and self.headers.get("If-None-Match") == tag:
                    status, body = 304, b""
                elif status == 200 and asked is not None:
                    first, size = int(asked[1]), len(body)
                    body = body[first : int(asked[2]) + 1 if asked[2] else size]
                    part = f"{first}-{first + len(body) - 1}" if body else "*"
                    headers["Content-Range"] = f"bytes {part}/{size}"
                    status = 206 if body else 416
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                if status != 304:
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _refuse(self) -> None:
                server.asked.append(f"{self.command} {self.path}")
                server.absent.append(f"{self.command} {self.path}")
                self.send_response(405)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_HEAD = do_PUT = do_POST = do_DELETE = do_OPTIONS = _refuse  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        return Handler
