"""All vectors as one file, the same bytes each time."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
from pathlib import Path

from .names import SUITE_VERSION


def write_archive(root: Path, path: Path) -> str:
    """Write the files below `root` as a .tar.gz, and `path`.sha256 beside it; gives the SHA-256 in hex.

    Names, order, times, owners and modes do not depend on the machine. The gzip stream is that of the zlib in use.
    """
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for file in sorted((f for f in root.rglob("*") if f.is_file()), key=lambda f: f.relative_to(root).as_posix()):
            data = file.read_bytes()
            entry = tarfile.TarInfo(f"tensordelta-vectors-{SUITE_VERSION}/{file.relative_to(root).as_posix()}")
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    packed = gzip.compress(raw.getvalue(), compresslevel=9, mtime=0)
    path.write_bytes(packed)
    digest = hashlib.sha256(packed).hexdigest()
    path.with_name(path.name + ".sha256").write_text(f"{digest}  {path.name}\n", encoding="ascii")
    return digest
