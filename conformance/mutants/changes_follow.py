"""Mutants of `follow.py`: following without a listing."""

from __future__ import annotations

from .change import change

FOLLOW = [
    change(
        "hint-goes-back",
        "A hint that names an older version is followed",
        "(known is None or hinted > known)",
        "True",
        "follow-nothing-behind",
    ),
    change(
        "hint-of-any-chain",
        "The hint's chain id is not compared",
        "return hint if hint.chain == self.id() else None",
        "return hint",
        "follow-nothing-foreign",
    ),
    change(
        "hint-with-any-number-of-names",
        "A hint may name any number of shortcuts",
        'require(len(stems) <= HINTED, "TD-LIM-004", "more than 64 shortcuts", "limit")',
        "pass",
        "follow-nothing-65-names",
    ),
    change(
        "hint-names-with-folders",
        "What the hint names need not match the pattern",
        'fields.strings("shortcuts", _STEM)',
        'fields.strings("shortcuts")',
        "follow-nothing-no-name",
    ),
    change(
        "hinted-shortcuts-unused",
        "The shortcuts that the hint names are not tried",
        "return list(dict.fromkeys([*named, manifest_name(version), *full]))",
        "return list(dict.fromkeys([manifest_name(version), *full]))",
        "follow-over-a-hinted-shortcut",
    ),
    change(
        "own-manifest-untried-after-a-hint",
        "A version's own manifest is tried only where the hint names no shortcut to it",
        "return list(dict.fromkeys([*named, manifest_name(version), *full]))",
        "return list(dict.fromkeys([*(named or [manifest_name(version)]), *full]))",
        "follow-past-a-shortcut-absent",
    ),
    change(
        "full-shortcuts-not-tried-by-name",
        "A full shortcut that the hint does not name is not tried",
        'full = [f"shortcuts/{version:012d}-full.json"] if oldest == NOTHING else []',
        "full: list[str] = []",
        "follow-by-a-full-shortcut-that-nothing-names",
    ),
    change(
        "held-or-nowhere",
        "Where no route leads from the state held, none from nothing is looked for",
        "for start in (held, None) if held is not None else (None,):",
        "for start in (held,):",
        "follow-from-a-version-beside",
    ),
    change(
        "a-refusal-is-an-absence",
        "A status of 403 or 500 counts as an absent object",
        "if error.code not in (404, 410):",
        "if False:",
        "follow-a-manifest-that-is-refused",
        "follow-a-target-that-is-refused",
    ),
    change(
        "410-is-a-failure",
        "A status of 410 counts as a failure of the store",
        "if error.code not in (404, 410):",
        "if error.code != 404:",
        "follow-nothing-gone-for-good",
    ),
    change(
        "a-refused-shortcut-is-a-failure",
        "A hinted shortcut that the server refuses ends the read",
        "            if not is_shortcut:\n                raise\n            return None",
        "            raise",
        "follow-past-a-shortcut-refused",
    ),
    change(
        "hinted-shortcut-not-compared",
        "A hinted shortcut is not compared with its version's manifest",
        "            if is_shortcut:\n                self._chain.check_shortcut(edge)\n",
        "",
        "follow-past-a-shortcut-of-another-state",
    ),
    change(
        "asks-for-the-next-version",
        "A version after the hinted one is asked for as well",
        "self._chain.find(target)\n",
        "self._chain.find(target + 1)\n        self._chain.find(target)\n",
        "follow-to-the-hinted-version",
    ),
]
