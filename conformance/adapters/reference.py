"""The adapter of the reference implementation: `python conformance/adapters/reference.py [OP REQUEST]`.

It speaks the protocol of ADAPTER.md. It and `holders.py` beside it are the only files of the suite that import
`tensordelta`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from holders import Group

import tensordelta as td
from tensordelta.stores import open_store

Request = Mapping[str, Any]
Answer = dict[str, Any]

LEVELS = (
    *"reader-core reader-exponent chain follow partial slice sources verifier".split(),
    *"checkout writer-core writer-exponent signed".split(),
)
CAPABILITIES = "prepare undo memory places pin shortcut collect sign".split()

#: What the reference calls an object may say more, such as the number of a chunk.
_OBJECT = re.compile(r"(chain|latest)\.json|(manifests|shortcuts|layouts|packs|fingerprints|files)/[A-Za-z0-9._/-]+")


class Adapter:
    """Answers requests; holds a state from one to the next."""

    def __init__(self, cache: str) -> None:
        self._cache = cache
        self._state = td.State.empty()
        self._holds = False
        self._prepared: tuple[td.Update, td.State, bool] | None = None
        self._signed: dict[str, td.Chain] = {}
        self._operations: dict[str, Callable[[Request], Answer]] = {
            "hello": self._hello,
            "read": self._read,
            "prepare": self._prepare,
            "apply": self._apply,
            "undo": self._undo,
            "verify": self._verify,
            "pull": self._pull,
            "publish": self._publish,
            "shortcut": self._shortcut,
            "collect": self._collect,
        }

    def answer(self, request: Request) -> Answer:
        """The answer to a request, without its id."""
        operation = self._operations.get(request["op"])
        if operation is None:
            return {"unsupported": f"no {request['op']}"}
        try:
            return {"ok": True, **operation(request)}
        except td.TensorDeltaError as fault:
            return {"error": fault.name, **_facts(fault)}
        except td.StoreError as failure:
            return {"failed": str(failure)}
        except Exception:
            return {"error": "internal", "message": traceback.format_exc()}
        finally:
            if "out" in request and self._holds:
                self._state.save(request["out"])

    def _hello(self, request: Request) -> Answer:
        return {
            "protocol": 1,
            "name": "tensordelta-reference",
            "version": td.__version__,
            "spec": "1.0-rc.1",
            "roles": ["reader", "verifier", "writer"],
            "levels": LEVELS,
            "capabilities": CAPABILITIES,
        }

    # -- reading --------------------------------------------------------------------------------------------------

    def _read(self, request: Request) -> Answer:
        self._take_held(request)
        chain = self._open(request)
        if "holders" in request:
            group = Group(chain, self._state, request["holders"])
            try:
                return {"version": group.read(request.get("unlike", ()), request.get("altered", ()), request["to"])}
            finally:
                self._state = group.state()
        if "tensors" in request:
            held = self._state if self._holds else None
            self._state = chain.load_part(request["tensors"], request["to"], held=held)
            self._holds = True
            return {"version": self._state.version}
        update = chain.prepare(self._state, request["to"])
        update.apply()
        self._holds = True
        return {"version": update.version}

    def _prepare(self, request: Request) -> Answer:
        self._take_held(request)
        update = self._open(request).prepare(self._state, request["to"])
        self._prepared = update, self._state, self._holds
        return {"version": update.version}

    def _apply(self, request: Request) -> Answer:
        update, _ = self._bound()
        update.apply()
        self._holds = True
        return {"version": update.version}

    def _undo(self, request: Request) -> Answer:
        update, self._holds = self._bound()
        update.undo()
        return {"version": update.base}

    def _bound(self) -> tuple[td.Update, bool]:
        """The prepared update, and whether anything was held when it was prepared.

        An update of the reference is bound to one state and cannot be given another, so the adapter says what the
        reference would have to.
        """
        assert self._prepared is not None
        update, state, held = self._prepared
        if state is not self._state:
            raise td.WrongBaseError("it was prepared for another state", object="update", rule="TD-APP-001")
        return update, held

    def _take_held(self, request: Request) -> None:
        if "held" not in request:
            return
        held = request["held"]
        self._state, self._holds = td.State.empty(), held is not None
        if held is not None:
            self._state = td.read_state(held["state"]).copy()
            self._state.sums()
            self._state.version, self._state.chain = held.get("version"), _chain_id(request["chain"])

    def _take_cache(self, request: Request) -> None:
        """Take a cache folder for the chain's case: chains of different cases have one id."""
        name = hashlib.sha256(os.fsencode(request["chain"])).hexdigest()
        os.environ["TENSORDELTA_CACHE"] = str(Path(self._cache, name))

    def _open(self, request: Request) -> td.Chain:
        self._take_cache(request)
        keys = request.get("keys")
        options = {
            "chain": request.get("pin"),
            "memory": request.get("memory"),
            "allow_sources": request.get("sources", ()),
            "pack_folders": request.get("places", ()),
            "trusted_keys": keys,
            "threshold": request.get("threshold", 1),
        }
        if keys is None:
            return td.open(request["chain"], threads=1, **options)
        # With keys a chain remembers what was read from it, so it stays open.
        name = json.dumps([request["chain"], options])
        if name not in self._signed:
            self._signed[name] = td.open(request["chain"], threads=1, **options)
        chain = self._signed[name]
        chain.allow_rollback = request.get("back", False)
        return chain

    def _verify(self, request: Request) -> Answer:
        found = self._open(request).verify(deep=True)
        return {"faults": [{"error": fault.name, **_facts(fault)} for fault in found.faults]}

    def _pull(self, request: Request) -> Answer:
        return {"version": self._open(request).pull(request["dir"], request["to"]).version}

    # -- writing --------------------------------------------------------------------------------------------------

    def _writer(self, request: Request, *, create: bool = False) -> td.Chain:
        self._take_cache(request)
        return td.open(request["chain"], create=create, threads=1, key=request.get("key"))

    def _shortcut(self, request: Request) -> Answer:
        chain = self._writer(request)
        order, tag = request.get("order", "natural"), request.get("tag") or ""
        made = _named(lambda: chain.shortcut(request["from"], request["to"], order=order, tag=tag), "TD-MAN-003")
        return {"version": made.version}

    def _collect(self, request: Request) -> Answer:
        self._writer(request).collect(1, keep=request["keep"], grace=request["grace"])
        return {}

    def _publish(self, request: Request) -> Answer:
        chain = self._writer(request, create=True)
        return {"version": _named(lambda: self._published(chain, request), "TD-OBJ-014").version}

    def _published(self, chain: td.Chain, request: Request) -> td.Published:
        return chain.publish(
            request["state"],
            annotations=request.get("annotations"),
            version=request.get("version"),
            full=request.get("full", False),
            layout_change=True,
            values=request.get("values", "step"),
            order=request.get("order", "natural"),
            files={name: Path(path) for name, path in request.get("files", {}).items()},
        )


def _named(work: Callable[[], td.Published], rule: str) -> td.Published:
    """What `work` gives. To the reference some requests are misuse; the protocol has only names of the closed set."""
    try:
        return work()
    except td.TensorDeltaError:
        raise
    except ValueError as fault:
        raise td.ConflictError(str(fault), object="the request", rule=rule) from None


def _facts(fault: td.TensorDeltaError) -> Answer:
    named = _OBJECT.match(fault.object)
    return {"object": named[0] if named else fault.object, "rule": fault.rule, "message": str(fault)}


def _chain_id(root: str) -> str | None:
    """The id of a chain, if its object can be read."""
    try:
        return str(json.loads(open_store(root).read("chain.json"))["chain"])
    except (td.TensorDeltaError, OSError, ValueError, KeyError, TypeError):
        return None


def main(arguments: Sequence[str]) -> int:
    """Answer the one request that the arguments are, or all of the standard input."""
    with tempfile.TemporaryDirectory(prefix="tensordelta-adapter-") as cache:
        adapter = Adapter(cache)
        if arguments:
            operation, request = arguments
            answer = adapter.answer({"op": operation, **json.loads(request)})
            print(json.dumps(answer), flush=True)
            return 0 if "ok" in answer else 3 if "unsupported" in answer else 1
        for line in sys.stdin:
            request = json.loads(line)
            print(json.dumps({"id": request["id"], **adapter.answer(request)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
