"""Mutants that take less than the format allows: what `census.py` counts is what finds them."""

from __future__ import annotations

from .change import change

BREADTH = [
    change(
        "seeds-xor-runs",
        "The number of the run of lanes is not added to the seed, but combined by xor",
        "mix(seed + (lanes >> np.uint64(16)))",
        "mix(seed ^ (lanes >> np.uint64(16)))",
        "lanes-of-n-in-bf16",
        "lanes-of-lanes-in-u8",
    ),
    change(
        "seeds-or-runs",
        "The number of the run of lanes is not added to the seed, but set in it",
        "mix(seed + (lanes >> np.uint64(16)))",
        "mix(seed | (lanes >> np.uint64(16)))",
        "lanes-of-u-in-f32",
        "lanes-of-t-in-i64",
    ),
    change(
        "uuids-of-version-4",
        "A chain id has to be a UUID of version 4",
        '_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")',
        '_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")',
        "chain-id-of-zeros",
        "chain-id-of-version-7",
    ),
    change(
        "uuids-of-the-usual-variant",
        "A chain id has to be a UUID of the variant of RFC 9562",
        '_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")',
        '_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){2}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")',
        "chain-id-of-ones",
        "chain-id-of-version-1",
    ),
    change(
        "fractions-of-thousandths",
        "A time has a fraction of three, six or nine digits, or none",
        r"(\.[0-9]{1,9})?Z",
        r"(\.([0-9]{3}){1,3})?Z",
        "times-of-two-to-five-digits",
        "times-of-six-to-eight-digits",
    ),
    change(
        "times-of-a-clock",
        "A time counts seconds after 1970, and no leap seconds",
        '    r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)',
        '    r"(19[7-9]|2[0-9]{2})[0-9]-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3])(:[0-5][0-9]){2}',
        "times-of-two-to-five-digits",
        "times-of-six-to-eight-digits",
    ),
    change(
        "unknown-integers-converted",
        "Integers of unknown fields are converted, with the bound of the language on their digits",
        "parse_int=Number,",
        "parse_int=lambda literal: Number(literal if int(literal) else literal),",
        "integers-of-5000-digits",
        "integers-of-5500-digits",
    ),
    change(
        "shapes-of-eight-dimensions",
        "A shape has at most eight dimensions",
        "DIMENSIONS = 16",
        "DIMENSIONS = 8",
        "shapes-of-five-to-fifteen-dimensions",
    ),
    change(
        "names-as-of-c",
        "A tensor name has no control characters",
        'require(1 <= len(name.encode()) <= NAME, "TD-LAY-003"',
        'require(name.isprintable() and 1 <= len(name.encode()) <= NAME, "TD-LAY-003"',
        "names-of-odd-characters",
    ),
]
