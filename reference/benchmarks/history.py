"""A chain of many versions of a vast model, which is planned and collected."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

import msgspec
from costs import peak
from fleet import Setup, Version

import tensordelta as td
from tensordelta.format import strict_json
from tensordelta.format.documents import LatestDocument
from tensordelta.format.manifest import Base
from tensordelta.format.names import (
    LATEST,
    manifest_name,
    new_salt,
    pack_name,
    parse_manifest_name,
    parse_shortcut_name,
    shortcut_name,
)
from tensordelta.live.watch import Watch

#: Words that change over s versions, as a power of s: published traces of GRPO runs have 2.2 times as many over 32.
GROWTH = 0.23
SKIP = (8, 64)
FULL_EVERY = 32
DAY = 86_400.0


@dataclass(frozen=True)
class Planning:
    """What a reader does to know its way.

    Attributes:
        behind: versions that it is behind; 0 for a look that finds nothing.
        seconds: of CPU, and of waiting for requests; `cpu` without the latter.
        requests: by kind.
        nbytes: that it read.
        edges, size: of the route, and bytes of its packs.
    """

    behind: int
    seconds: float
    cpu: float
    requests: dict[str, int]
    nbytes: int
    edges: int
    size: int


class History:
    """A chain of many versions after the first two, with shortcuts and hollow packs."""

    def __init__(self, setup: Setup, version: Version) -> None:
        self.setup = setup
        self.store = version.store
        self.newest = setup.versions - 1
        self._delta, self._full = version.delta, version.full
        self._prints = {0: version.full.fingerprint, 1: version.delta.fingerprint}
        for number in range(2, setup.versions):
            self._prints[number] = secrets.token_hex(8)
            self._put(number, number - 1)
        for number in range(1, setup.versions):
            for span in SKIP:
                if number % span == 0:
                    self._put(number, number - span)
            if number % FULL_EVERY == 0:
                self._put(number, None)
        for name in self.store.objects:
            self.store.modified.setdefault(name, 0.0)
        names = [found for name in self.store.objects if (found := parse_shortcut_name(name)) is not None]
        self._shortcuts = names
        self.hint(self.newest)

    def _put(self, version: int, base: int | None) -> None:
        template = self._full if base is None else self._delta
        scale = 1.0 if base is None else (version - base) ** GROWTH
        packs = []
        for entry in template.packs:
            sha256 = secrets.token_hex(32)
            path, size = pack_name(sha256, new_salt()), int(entry.size * scale)
            packs.append(msgspec.structs.replace(entry, sha256=sha256, path=path, size=size))
            self.store.objects[path], self.store.sizes[path] = b"", size
        own = base is not None and version - base == 1
        manifest = msgspec.structs.replace(
            template,
            version=version,
            fingerprint=self._prints[version],
            base=None if base is None else Base(base, template.layout, self._prints[base]),
            packs=packs,
        )
        name = manifest_name(version) if own else shortcut_name(version, base)
        self.store.objects[name] = manifest.encode()

    def hint(self, version: int) -> None:
        """Have the hint name a version, and the shortcuts to versions until then."""
        stems = [each for each in self._shortcuts if each.version <= version][-64:]
        names = [shortcut_name(*each)[len("shortcuts/") : -len(".json")] for each in stems]
        document = LatestDocument(strict_json.VERSION, self._delta.chain, version, names)
        self.store.objects[LATEST] = strict_json.encode(document)

    def plan(self, behind: int) -> Planning:
        """A look, and the plan of the way, by a process that has begun to follow that many versions ago."""
        floor = self.newest - behind
        hidden = {name: data for name, data in self.store.objects.items() if _leads_beyond(name, floor)}
        timed = []
        for latency in (0.0, self.setup.latency):
            for name in hidden:
                del self.store.objects[name]
            self.hint(floor)
            chain = td.open(self.store, threads=1)
            watch = Watch(chain._reader, floor)
            watch.look()
            chain.plan(floor, floor - 1)
            self.store.objects |= hidden
            self.hint(self.newest)
            self.store.reset()
            self.store.latency = latency
            started = time.process_time()
            found = watch.look()
            route = chain.plan(found[-1], floor) if found else None
            timed.append(time.process_time() - started)
            self.store.latency = 0.0
        return Planning(
            behind,
            seconds=timed[0] + self.store.waited,
            cpu=timed[0],
            requests=dict(self.store.requests),
            nbytes=self.store.got,
            edges=0 if route is None else len(route.edges),
            size=0 if route is None else route.size,
        )


def _leads_beyond(name: str, version: int) -> bool:
    shortcut = parse_shortcut_name(name)
    found = parse_manifest_name(name) if shortcut is None else shortcut.version
    return found is not None and found > version


@dataclass(frozen=True)
class Collecting:
    """A collector's two runs: one that drops versions, and one after the grace period that deletes their packs.

    Attributes:
        listed: names in the chain.
        dropped: versions.
        deleted: objects.
        cpu: seconds of both, without the requests' own.
        requests: by kind, of both.
        nbytes: that both read.
        peak: bytes of memory at most.
    """

    listed: int
    dropped: int
    deleted: int
    cpu: float
    requests: dict[str, int]
    nbytes: int
    peak: int


def collect(history: History) -> Collecting:
    """Collect a chain's old versions."""
    store, keep_last = history.store, history.setup.keep_last
    listed = len(store.objects)
    chain = td.open(store, threads=1)
    most = peak(lambda: chain.collect(keep_last, dry_run=True))
    store.reset()
    started = time.process_time()
    store.now += 30 * DAY
    first = chain.collect(keep_last)
    store.now += 30 * DAY
    second = chain.collect(keep_last)
    seconds = time.process_time() - started
    return Collecting(
        listed,
        dropped=len(first.dropped) + len(second.dropped),
        deleted=len(first.objects) + len(second.objects),
        cpu=seconds,
        requests=dict(store.requests),
        nbytes=store.got,
        peak=most,
    )
