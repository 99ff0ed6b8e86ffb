"""A writer that lays down objects made before: python toy_writer.py OBJECTS HOW [OP REQUEST].

OBJECTS: a JSON file, for each state file's name the objects to lay down, in their order, as hex. HOW: `careful`;
`careless` replaces a manifest that is there already; `in-place` lets objects appear under their names byte by byte.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from pathlib import Path

OBJECTS = json.loads(Path(sys.argv[1]).read_text())
HOW = sys.argv[2]
HELLO = {"ok": True, "protocol": 1, "name": "toy", "version": "1", "spec": "1.0", "levels": ["writer-core"]}


def put(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        for byte in data:
            file.write(bytes([byte]))
            file.flush()
            time.sleep(0.0001)


def fresh(objects: dict) -> dict:
    """The objects under names of this attempt; the manifest is the last."""
    salt = os.urandom(8)
    renamed: dict = {}
    made = {}
    for name, raw in objects.items():
        kind, _, rest = name.partition("/")
        if kind == "packs":
            renamed[name] = f"{name[:71]}{salt.hex()}.safetensors"
        if kind == "fingerprints":
            raw = raw[:-8] + salt
            renamed[rest[:64]] = hashlib.sha256(raw).hexdigest()
        for old, new in renamed.items():
            name, raw = name.replace(old, new), raw.replace(old.encode(), new.encode())
        made[name] = raw
    return made


def publish(request: dict) -> dict:
    root = Path(request["chain"])
    objects = {name: bytes.fromhex(data) for name, data in OBJECTS[Path(request["state"]).name].items()}
    for name, raw in fresh(objects).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if HOW == "in-place":
            put(path, raw)
            continue
        temporary = path.with_name(f".tmp-{os.getpid()}")
        put(temporary, raw)
        if HOW == "careful" and name.startswith("manifests/"):
            try:
                os.link(temporary, path)
            except FileExistsError:
                if json.loads(path.read_bytes())["fingerprint"] != json.loads(raw)["fingerprint"]:
                    return {"error": "conflict", "object": name}
            finally:
                temporary.unlink()
        else:
            temporary.replace(path)
    return {"ok": True, "version": request["version"]}


def main() -> int:
    if len(sys.argv) > 3:
        answer = publish(json.loads(sys.argv[4]))
        print(json.dumps(answer))
        return 1 if "error" in answer else 0
    for line in sys.stdin:
        request = json.loads(line)
        answer = HELLO if request["op"] == "hello" else publish(request)
        print(json.dumps({"id": request["id"], **answer}), flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
