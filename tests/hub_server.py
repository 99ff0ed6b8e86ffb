"""A server on this machine that answers as the Hugging Face Hub does: files of repositories, and buckets.

A bucket's bytes go through the real hf-xet, whose local storage holds them: the token routes answer with a folder of
this machine in place of the address of a storage server. What is served can be bent, as a bad network would.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import struct
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

from faults import Fault, Faults

_MISSING = {"X-Error-Code": "EntryNotFound", "X-Error-Message": "no such file"}
_NO_REPOSITORY = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "no such bucket"}


@dataclass(frozen=True)
class Stored:
    """A file of a bucket: where hf-xet has its bytes, their number, and when it was put."""

    xet: str
    size: int
    uploaded: float


class Hub:
    """Serves files of repositories at commits, and buckets; a context.

    Attributes:
        files: "org/model/resolve/commit/file" -> bytes; may be changed, as a bad network would.
        branches: "org/model" -> branch -> commit.
        sent: path and bytes of each of these files that was sent.
        buckets: "owner/name" -> path -> the file.
        faults: what goes wrong.
        batches: the paths that each batch named.
        strangers: requests for bytes at an address of another host, and whether they bore a token.
        elsewhere: have bytes fetched from an address of another host, as the Hub does.
        token: what requests have to bear, if anything.
        page: how many files a page of a listing has.
        backwards: list in descending order.
        processes: several processes use it at the same time.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.branches: dict[str, dict[str, str]] = {}
        self.sent: list[tuple[str, int]] = []
        self.buckets: dict[str, dict[str, Stored]] = {}
        self.faults = Faults()
        self.batches: list[list[str]] = []
        self.strangers: list[bool] = []
        self.elsewhere = False
        self.token: str | None = None
        self.page = 1000
        self.backwards = False
        self.processes = False
        self._given, self._given_at = -10.0, 0
        self._giving = threading.Lock()
        self._tags: dict[str, str] = {}
        self._bodies: dict[str, bytes] = {}
        self._sizes: dict[str, int] = {"0" * 64: 0}
        self._reading = threading.Lock()
        self._lock = threading.Lock()
        self._folder = tempfile.TemporaryDirectory(prefix="hub-")
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def address(self) -> str:
        """What HF_ENDPOINT has to be."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def storage(self) -> str:
        """Where hf-xet keeps the bytes."""
        return f"local://{self._folder.name}"

    def _free_storage(self) -> str:
        """The same, as soon as no process has it open: hf-xet lets one in at a time, and does not wait itself.

        Whoever opens it writes to its index. So who got it last has had its turn once the index has another time and
        nobody holds its lock; who was killed before its turn is waited for ten seconds.
        """
        if not self.processes:
            return self.storage
        index = Path(self._folder.name, "xet", "xorbs", "global_dedup_lookup.redb")
        with self._giving:
            while (_time_of(index) == self._given_at and time.monotonic() < self._given + 10) or _locked(index):
                time.sleep(0.005)
            self._given, self._given_at = time.monotonic(), _time_of(index)
        return self.storage

    def add(self, repository: str, commit: str, name: str, data: bytes) -> None:
        """Have a file."""
        path = f"{repository}/resolve/{commit}/{name}"
        self.files[path] = data
        self._tags[path] = hashlib.sha256(data).hexdigest()
        self.branches.setdefault(repository, {})["main"] = commit

    def reset(self) -> None:
        """Forget what there is and what was asked, and have nothing go wrong."""
        self.files.clear()
        self.branches.clear()
        self.sent.clear()
        self.buckets.clear()
        self.faults.clear()
        self.batches.clear()
        self.strangers.clear()
        self.elsewhere = False
        self.token, self.page, self.backwards, self.processes = None, 1000, False, False

    @property
    def requests(self) -> list[str]:
        """What was asked for, as "METHOD path"."""
        return self.faults.requests

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        self._folder.cleanup()

    # -- buckets ------------------------------------------------------------------------------------------------------

    def body(self, stored: Stored) -> bytes:
        """The bytes of a bucket's file, out of hf-xet's storage."""
        if not stored.size:
            return b""
        with self._reading:
            if stored.xet not in self._bodies:
                self._bodies[stored.xet] = self._out_of_storage(stored)
            return self._bodies[stored.xet]

    def _out_of_storage(self, stored: Stored) -> bytes:
        from hf_xet import XetFileInfo, XetSession

        for attempt in range(500):
            storage = self._free_storage()
            try:
                with XetSession().new_file_download_group(endpoint=storage) as group:
                    target = Path(self._folder.name, "body")
                    group.start_download_file(XetFileInfo(stored.xet, stored.size), str(target))
                return target.read_bytes()
            except RuntimeError as error:
                if "lock" not in str(error) or attempt == 499:
                    raise
                time.sleep(0.01)
        raise AssertionError

    def _batch(self, bucket: dict[str, Stored], lines: Iterable[bytes], fault: Fault) -> tuple[int, dict[str, Any]]:
        lines = list(lines)
        self.batches.append([json.loads(line)["path"] for line in lines])
        done = 0
        failed: list[dict[str, str]] = []
        for line in lines:
            operation = json.loads(line)
            path = operation["path"]
            if fault.failed is not None and fault.failed in path:
                failed.append({"path": path, "error": "storage is busy"})
            elif operation["type"] == "addFile":
                bucket[path] = Stored(operation["xetHash"], self._size(operation["xetHash"]), time.time())
                done += 1
            elif operation["type"] == "deleteFile":
                bucket.pop(path, None)
                done += 1
            else:
                failed.append({"path": path, "error": f"cannot {operation['type']}"})
        answer = {"success": not failed, "processed": done + len(failed), "succeeded": done, "failed": failed}
        return (422 if failed and not done else 200), answer

    def _size(self, xet: str) -> int:
        """The size of a file that hf-xet has stored, which its shards tell."""
        if xet not in self._sizes:
            for shard in Path(self._folder.name, "xet", "xorbs", "shards").glob("*.mdb"):
                self._sizes.update(_shard_sizes(shard.read_bytes()))
        return self._sizes[xet]

    def _tree(
        self, name: str, prefix: str, query: dict[str, list[str]], fault: Fault
    ) -> tuple[list[dict[str, Any]], dict[str, str]]:
        bucket = self.buckets[name]
        after = query.get("cursor", [""])[0]
        paths = sorted(path for path in list(bucket) if not prefix or path.startswith(f"{prefix}/"))
        if fault.hide is not None:
            paths = [path for path in paths if fault.hide not in path]
        page = [path for path in paths if path > after][: self.page]
        headers = {}
        if page and page[-1] != paths[-1]:
            tree = f"{self.address}/api/buckets/{name}/tree" + (f"/{quote(prefix, safe='')}" if prefix else "")
            headers["Link"] = f'<{tree}?recursive=True&cursor={quote(page[-1], safe="")}>; rel="next"'
        if self.backwards:
            page.reverse()
        return [_described(path, bucket[path]) for path in page if path in bucket], headers

    def _model(self, name: str, revision: str) -> dict[str, Any] | None:
        """What the Hub says of a model; None where there is no such revision."""
        commit = self.branches[name].get(revision, revision)
        under = f"{name}/resolve/{commit}/"
        found = [(path.removeprefix(under), data) for path, data in self.files.items() if path.startswith(under)]
        siblings = [{"rfilename": file, "size": len(data)} for file, data in found]
        return {"id": name, "sha": commit, "siblings": siblings} if found else None

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_HEAD(self) -> None:
                self._route()

            def do_GET(self) -> None:
                self._route()

            def do_POST(self) -> None:
                self._route()

            def _route(self) -> None:
                fault = hub.faults.take(self.command, self.path)
                data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                time.sleep(fault.delay)
                if fault.act is not None:
                    fault.act()
                if fault.drop == "before":
                    self.close_connection = True
                elif fault.status is not None:
                    self._send(fault.status, b"out of order", fault.headers)
                else:
                    self._dropped, self._cut = fault.drop == "after", fault.cut
                    self._answer(data, fault)

            def _answer(self, data: bytes, fault: Fault) -> None:
                url = urlsplit(self.path)
                parts = url.path.lstrip("/").split("/")
                if parts[:2] == ["api", "buckets"] and len(parts) >= 4:
                    self._api("/".join(parts[2:4]), parts[4:], parse_qs(url.query), data, fault)
                elif parts[:2] == ["api", "models"]:
                    self._describe("/".join(parts[2:4]), unquote(parts[5]) if len(parts) > 5 else "main")
                elif parts[0] == "elsewhere":
                    hub.strangers.append("Authorization" in self.headers)
                    self._resolve("/".join(parts[1:3]), unquote("/".join(parts[3:])), fault)
                elif parts[0] == "buckets" and parts[3] == "resolve" and hub.elsewhere and self.command == "GET":
                    if self._allowed("/".join(parts[1:3])):
                        port = hub._server.server_address[1]
                        there = f"http://localhost:{port}/elsewhere/{'/'.join(parts[1:3])}/{'/'.join(parts[4:])}"
                        self._send(302, b"", {"Location": there})
                elif parts[0] == "buckets" and parts[3] == "resolve":
                    if self._allowed("/".join(parts[1:3])):
                        self._resolve("/".join(parts[1:3]), unquote("/".join(parts[4:])), fault)
                else:
                    self._file(unquote(url.path).lstrip("/"))

            def _describe(self, name: str, revision: str) -> None:
                if name not in hub.branches:
                    self._send(404, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "no such model"})
                elif (found := hub._model(name, revision)) is None:
                    self._send(404, b"", {"X-Error-Code": "RevisionNotFound", "X-Error-Message": "no such revision"})
                else:
                    self._json(found)

            def _allowed(self, bucket: str) -> bool:
                if hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
                    self._send(401, b"", {"X-Error-Message": "no such token"})
                    return False
                if bucket not in hub.buckets:
                    self._send(404, b"", _NO_REPOSITORY)
                    return False
                return True

            def _api(self, name: str, rest: list[str], query: dict[str, list[str]], data: bytes, fault: Fault) -> None:
                if not rest and self.command == "POST":
                    hub.buckets.setdefault(name, {})
                    self._json({"url": f"{hub.address}/buckets/{name}", "name": name, "id": name})
                elif not self._allowed(name):
                    pass
                elif rest and rest[0] in ("xet-write-token", "xet-read-token"):
                    expires = int(time.time()) + 3600
                    self._json({"casUrl": hub._free_storage(), "accessToken": "token", "exp": expires})
                elif rest == ["batch"]:
                    status, answer = hub._batch(hub.buckets[name], data.splitlines(), fault)
                    self._json(answer, status)
                elif rest == ["paths-info"]:
                    bucket = hub.buckets[name]
                    self._json([_described(path, bucket[path]) for path in json.loads(data)["paths"] if path in bucket])
                elif rest and rest[0] == "tree":
                    answer, headers = hub._tree(name, unquote("/".join(rest[1:])), query, fault)
                    self._json(answer, headers=headers)
                else:
                    self._send(404, b"", {})

            def _resolve(self, name: str, path: str, fault: Fault) -> None:
                stored = hub.buckets[name].get(path)
                if stored is None:
                    self._send(404, b"", _MISSING)
                    return
                body = hub.body(stored)
                if fault.bend is not None:
                    body = fault.bend(body)
                token = f"{hub.address}/api/buckets/{name}/xet-read-token"
                headers = {"X-Xet-Hash": stored.xet, "X-Xet-Refresh-Route": token, "ETag": f'"{stored.xet}"'}
                wanted = self.headers.get("Range", "")
                if self.command == "GET" and wanted.startswith("bytes="):
                    first, _, last = wanted.removeprefix("bytes=").partition("-")
                    start, stop = int(first), min(int(last or len(body)) + 1, len(body))
                    if start >= len(body):
                        self._send(416, b"", {"Content-Range": f"bytes */{len(body)}"})
                        return
                    headers["Content-Range"] = f"bytes {start}-{stop - 1}/{len(body)}"
                    self._send(206, body[start:stop], headers)
                else:
                    self._send(200, body, headers)

            def _file(self, path: str) -> None:
                parts = path.split("/")
                if len(parts) > 4 and parts[2] == "resolve":  # at a commit, or at a branch
                    parts[3] = hub.branches.get("/".join(parts[:2]), {}).get(parts[3], parts[3])
                    path = "/".join(parts)
                data = hub.files.get(path)
                if hub.token is not None and self.headers.get("Authorization") != f"Bearer {hub.token}":
                    # The Hub does not tell strangers which repositories there are.
                    self._send(401, b"", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "no such repository"})
                elif data is None:
                    self._send(404, b"", _MISSING)
                else:
                    headers = {"ETag": f'"{hub._tags[path]}"', "X-Repo-Commit": path.split("/")[3]}
                    wanted = self.headers.get("Range", "").removeprefix("bytes=0-")
                    if wanted.isdecimal():
                        headers["Content-Range"] = f"bytes 0-{min(int(wanted) + 1, len(data)) - 1}/{len(data)}"
                        hub.sent.append((path, min(int(wanted) + 1, len(data))))
                        self._send(206, data[: int(wanted) + 1], headers)
                    else:
                        hub.sent.append((path, len(data) if self.command == "GET" else 0))
                        self._send(200, data, headers)

            def _json(self, value: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
                self._send(status, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

            def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                if getattr(self, "_dropped", False):
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                cut = getattr(self, "_cut", None)
                if self.command != "HEAD":
                    self.wfile.write(body if cut is None else body[:cut])
                if cut is not None:
                    self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _time_of(file: Path) -> int:
    return file.stat().st_mtime_ns if file.exists() else 0


def _locked(path: Path) -> bool:
    """Whether another process has it open and locked."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def _described(path: str, stored: Stored) -> dict[str, Any]:
    uploaded = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(stored.uploaded)) + ".000Z"
    return {
        "type": "file",
        "path": path,
        "size": stored.size,
        "xetHash": stored.xet,
        "mtime": uploaded,
        "uploadedAt": uploaded,
    }


def _shard_sizes(data: bytes) -> dict[str, int]:
    """The sizes of the files that a shard of hf-xet describes, by their hashes.

    After 48 bytes of header, each file has a record of 48 bytes (hash, flags, number of segments) and as many for its
    segments (hash, flags, bytes, first and last chunk), and for what the flags say; a hash of all ones ends the files.
    """
    sizes: dict[str, int] = {}
    at = 48
    while data[at : at + 32] != b"\xff" * 32:
        words = struct.unpack_from("<4Q", data, at)
        flags, segments = struct.unpack_from("<II", data, at + 32)
        at += 48
        sizes["".join(f"{word:016x}" for word in words)] = sum(
            struct.unpack_from("<I", data, at + 48 * each + 36)[0] for each in range(segments)
        )
        at += 48 * segments * (2 if flags & 1 << 31 else 1) + (48 if flags & 1 << 30 else 0)
    return sizes
