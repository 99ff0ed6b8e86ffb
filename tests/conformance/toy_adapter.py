"""An adapter for the toy chains of toy_suite, with a fault of choice: python toy_adapter.py FAULT [OP REQUEST].

Version n of a toy chain is the file `n.safetensors` in it; a file `n.error` says that it is rejected, and how.
Standard library only, so that it starts quickly.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

FAULT = sys.argv[1]
HELLO = {
    "ok": True,
    "protocol": 1,
    "name": "toy",
    "version": "1",
    "spec": "1.0-rc.1",
    "roles": ["reader", "verifier"],
    "levels": ["reader-core", "chain", "verifier"],
}
held: bytes | None = None
prepared: bytes | None = None
undo: bytes | None = None


def read(request: dict) -> dict:
    global held
    if "held" in request:
        held = Path(request["held"]["state"]).read_bytes() if request["held"] else None
    chain, to = Path(request["chain"]), request["to"]
    if to is None:
        to = max(int(path.stem) for path in chain.glob("*.safetensors"))
    if FAULT == "touches-the-chain":
        (chain / "lock").write_text("mine")
    if FAULT == "rewrites-the-chain":
        (chain / "chain.json").write_text("{ }")
    if FAULT == "writes-beside":
        (chain / "../../note").write_text("mine")
    if FAULT == "hungry":
        bytearray(64 << 20)[::4096] = bytes(16 << 10)
    error = chain / f"{to}.error"
    if error.exists() and FAULT != "accepts-all":
        name = "integrity" if FAULT == "wrong-error" else error.read_text()
        if FAULT == "changes-held":
            held = (chain / f"{to}.safetensors").read_bytes()
        return {"error": name, "object": f"{to}.error", "rule": "TD-POS-003", "message": "it says so"}
    held = (chain / f"{to}.safetensors").read_bytes()
    if FAULT == "wrong-state":
        held = held[:-1] + bytes([held[-1] ^ 1])
    return {"ok": True, "version": to + (FAULT == "wrong-version")}


def pull(request: dict) -> dict:
    folder, state = Path(request["dir"]), Path(request["chain"]) / f"{request['to']}.safetensors"
    folder.mkdir(exist_ok=True)
    new = folder / ".new"
    if new.exists() and FAULT == "does-not-resume":
        return {"error": "conflict", "message": "another pull is at work"}
    target = folder / "model.safetensors"
    for place in (target,) if FAULT == "writes-in-place" else (new, target):
        with place.open("wb") as file:
            for byte in state.read_bytes():
                file.write(bytes([byte]))
                file.flush()
                time.sleep(0.001)
    new.unlink(missing_ok=True)
    if FAULT == "leaves-files":
        (folder / "old.json").write_text("{}")
    if FAULT == "puts-a-tensor-twice":
        shutil.copyfile(target, folder / "again.safetensors")
    if FAULT != "forgets-files":
        (folder / "config.json").write_text("{}")
    return {"ok": True, "version": request["to"]}


def verify(request: dict) -> dict:
    chain = Path(request["chain"])
    if FAULT == "verifies-nothing":
        return {"ok": True, "faults": []}
    if FAULT == "cries-wolf":
        return {"ok": True, "faults": [{"error": "limit", "object": "chain.json"}]}
    if FAULT == "invents-errors":
        return {"ok": True, "faults": [{"error": "broken", "object": "chain.json"}]}
    faults = [{"error": path.read_text(), "object": path.name} for path in sorted(chain.glob("*.error"))]
    if FAULT == "cannot-verify" and faults:
        return faults[0]
    return {"ok": True, "faults": faults}


def answer(request: dict) -> dict:
    global held, prepared, undo
    op = request["op"]
    if op == "hello":
        capabilities = ["pin", "prepare"] if FAULT == "prepares" else ["pin"]
        return HELLO | {"protocol": 2 if FAULT == "other-protocol" else 1, "capabilities": capabilities}
    if FAULT == "unsupported":
        return {"unsupported": f"{op} is not for me"}
    if op in ("read", "prepare") and FAULT == "crashes":
        print("about to fall over", file=sys.stderr, flush=True)
        os._exit(3)
    if op in ("read", "prepare") and FAULT == "hangs":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(os.environ["TOY_PIDS"]).write_text(f"{os.getpid()} {child.pid}")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(600)
    if op == "read":
        return read(request)
    if op == "verify":
        return verify(request)
    if op == "pull":
        return pull(request)
    if op == "prepare":
        before = Path(request["held"]["state"]).read_bytes()
        found = read(request)
        prepared, held = held, before
        return found
    if op == "apply":
        held, undo = prepared, held
        return {"ok": True}
    if op == "undo":
        held = undo
        return {"ok": True}
    return {"unsupported": op}


def main() -> int:
    if len(sys.argv) > 2:
        request = json.loads(sys.argv[3]) | {"op": sys.argv[2]}
        found = finish(request)
        code = 1 if "error" in found else 3 if "unsupported" in found else 0
        print(json.dumps(found))
        return 0 if FAULT == "always-ends-well" else code
    for line in sys.stdin:
        request = json.loads(line)
        found = {"id": request["id"], **finish(request)}
        text = json.dumps(found)
        if request["op"] == "read":
            if FAULT == "wrong-id":
                text = json.dumps(found | {"id": request["id"] + 1})
            elif FAULT == "no-json":
                text = "done!"
            elif FAULT == "two-answers":
                text = json.dumps(found | {"error": "limit"})
            elif FAULT == "invents-errors":
                text = json.dumps({"id": request["id"], "error": "broken"})
        print(text, flush=True)
    return 0


def finish(request: dict) -> dict:
    found = answer(request)
    if "out" in request and held is not None and FAULT != "writes-nothing":
        Path(request["out"]).write_bytes(b"nonsense" if FAULT == "writes-nonsense" else held)
    return found


if __name__ == "__main__":
    raise SystemExit(main())
