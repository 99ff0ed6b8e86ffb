"""A publisher in the background: each version is what was submitted, and the next process goes on."""

from __future__ import annotations

from pathlib import Path

import tensordelta as td

from .scene import Scene, Spec, left_over, open_chain, use_cache, wrong_versions


class Background(Scene):
    """Submit states one after another, from the first one that is not published."""

    def __init__(self, spec: Spec) -> None:
        super().__init__(spec)
        self.states = {int(version): td.read_state(path) for version, path in spec["states"].items()}
        self.upkeep = {**spec["upkeep"], "skip": tuple(spec["upkeep"]["skip"])}
        self._seen = -1  # the newest version whose ticket said that it is published

    def work(self, root: Path) -> None:
        use_cache(root / "cache")
        chain = open_chain(root / "chain", create=True)
        newest = chain.newest()
        with chain.publisher(layout_change=True, **self.upkeep) as publisher:
            for version in range(0 if newest is None else newest + 1, len(self.states)):
                published = publisher.submit(self.states[version]).result()
                assert published.version == version
        if publisher.trouble is not None:
            raise publisher.trouble

    def look(self, root: Path) -> list[str]:
        use_cache(root / "cache")
        open_chain(root / "chain", create=True)
        # A shortcut goes after the version that it leads to, which `verify` tells of.
        return wrong_versions(root / "chain", self.states, verify=False)

    def look_after(self, root: Path) -> list[str]:
        faults = left_over(root / "chain") + wrong_versions(root / "chain", self.states)
        if open_chain(root / "chain").newest() != max(self.states):
            faults.append("not all states were published")
        return faults
