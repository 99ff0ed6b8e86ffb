"""A server with the rules of the Hub's S3 gateway, as its documentation has them.

The endpoint has the namespace in its path, and buckets are named in paths. A GET is redirected to where the bytes lie.
A PUT with `If-None-Match: *` is refused with 412 where the name is taken. Listings are those of ListObjectsV2 alone.
"""

from __future__ import annotations

import hashlib
import re
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

NAMESPACE = "acme"


class Gateway:
    """The gateway; a context.

    Attributes:
        objects: the objects of all buckets, by `BUCKET/KEY`.
        redirects: how many requests were redirected.
        conditional: the names put with `If-None-Match: *`.
    """

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.redirects = 0
        self.conditional: list[str] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def endpoint(self) -> str:
        """The endpoint, with the namespace."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/{NAMESPACE}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def listing(self, bucket: str, query: dict[str, list[str]]) -> bytes:
        """The answer to ListObjectsV2."""
        prefix = query.get("prefix", [""])[0]
        after = query.get("start-after", [""])[0]
        keys = sorted(name.partition("/")[2] for name in self.objects if name.startswith(f"{bucket}/{prefix}"))
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[f'{bucket}/{key}'])}</Size>"
            f'<ETag>"x"</ETag><LastModified>{datetime.now(UTC):%Y-%m-%dT%H:%M:%S}.000Z</LastModified></Contents>'
            for key in keys
            if key > after
        )
        return f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                place, _, name = unquote(url.path).lstrip("/").partition("/")
                if place == NAMESPACE and "list-type" in url.query:
                    bucket = name.strip("/")
                    self._send(200, gateway.listing(bucket, parse_qs(url.query)), {"Content-Type": "application/xml"})
                elif place == NAMESPACE and name in gateway.objects:
                    gateway.redirects += 1
                    self._send(302, b"", {"Location": f"/cdn/{quote(name)}"})
                elif place == "cdn" and name in gateway.objects:
                    self._bytes(gateway.objects[name])
                else:
                    self._send(404, b"<Error><Code>NoSuchKey</Code></Error>", {"Content-Type": "application/xml"})

            def _bytes(self, data: bytes) -> None:
                headers = {"ETag": f'"{hashlib.md5(data).hexdigest()}"', "Last-Modified": self.date_time_string()}
                asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
                if asked is None:
                    self._send(200, data, headers)
                    return
                first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
                headers["Content-Range"] = f"bytes {first}-{last}/{len(data)}"
                self._send(206, data[first : last + 1], headers)

            def do_PUT(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                place, _, name = unquote(urlsplit(self.path).path).lstrip("/").partition("/")
                assert place == NAMESPACE
                with gateway._lock:
                    taken = name in gateway.objects
                    if self.headers.get("If-None-Match") == "*":
                        gateway.conditional.append(name)
                        if taken:
                            self._send(412, b"<Error><Code>PreconditionFailed</Code></Error>", {})
                            return
                    gateway.objects[name] = data
                self._send(200, b"", {"ETag": f'"{hashlib.md5(data).hexdigest()}"'})

            def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        return Handler
