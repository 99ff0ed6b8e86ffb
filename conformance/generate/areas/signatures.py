"""Signatures (SPEC.md section 14)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any

from generate import ed25519
from generate.builder import Builder, manifest_name, nothing, shortcut_name
from generate.edits import Area
from generate.model import Model
from generate.scenes import Scene, State, line, little, move, twins, walk
from generate.signing import (
    CHAIN_SIG,
    FIRST,
    SECOND,
    SECOND_VERSION,
    SECRET,
    base64_of,
    keyid,
    resign,
    resigned_with,
    signature,
    signed,
    signed_line,
    trusted,
)
from generate.standard import flipped, replaced

COMMON = {"level": "signed", "verify": None, "input": {"keys": trusted()}}
BOTH = {"keys": trusted(SECRET, SECOND)}
FIRST_SIG = f"{FIRST}.sig"
case = Area("signatures", signed_line, "signed-by-the-key", COMMON, "untrusted")

# -- what is signed ----------------------------------------------------------------------------------------------------

case("signed-by-the-key", "SIG-001", "The chain and its manifests are signed by the key that the reader trusts").good(
    verify=True
)
case("signed-read-from-nothing", "SIG-001", "A route of two signed manifests, with nothing held").good(held=None)
case(
    "signed-by-one-of-two-keys",
    "SIG-003",
    "One manifest is signed by another trusted key than the chain object and the other manifest",
).good(spoil=resign(FIRST, secret=SECOND), input=BOTH, held=None)


def under_any_name() -> Builder:
    """Signatures whose `keyid` is no digest, with an unknown field."""
    builder = line(walk(2))
    for name in ("chain.json", manifest_name(0), FIRST):
        resign(name, keyid="trainer é 1", colour=[1e3])(builder)
    return builder


case(
    "signed-under-a-name-of-any-form",
    "SIG-003",
    "The name of a key is what the reader's configuration calls it, and unknown fields are ignored",
).good(chain=under_any_name, input={"keys": {"trainer é 1": ed25519.public_key(SECRET).hex()}})


def over_bytes_as_stored() -> Builder:
    """The manifests are signed as they are stored, with white space and escapes."""
    builder = Builder()
    states = walk(2)
    builder.full(0, states[0], text=lambda data: b"\n" + data.replace(b'"layout"', b'"l\\u0061yout"') + b"\n ")
    builder.delta(1, states[1], 0, text=lambda data: data.replace(b",", b" ,\t"))
    return signed(builder)


case(
    "signed-over-bytes-as-stored",
    "SIG-001",
    "The signature is over the manifest's bytes with their white space and escapes",
).good(chain=over_bytes_as_stored, held=None)


def garbage() -> Builder:
    builder = line(walk(2))
    for name in ("chain.json", manifest_name(0), FIRST):
        builder.put(f"{name}.sig", b"garbage")
    return builder


case(
    "signatures-without-keys", "SIG-007", "Without keys signature objects are ignored, even those that are no JSON"
).good(chain=garbage, level="reader-core", input=None)


# -- chain and manifests that were asked for ---------------------------------------------------------------------------
def changed(how: Callable[[bytes], bytes], name: str = FIRST) -> Callable[[Builder], None]:
    """Changes an object but not its signature."""
    return lambda builder: builder.change(name, how)


case("unsigned-chain", "SIG-002", "The chain object has no signature").bad(
    spoil=lambda builder: builder.remove(CHAIN_SIG)
)
case("unsigned-manifest-asked-for", "SIG-002", "The manifest that was asked for by its version has no signature").bad(
    spoil=lambda builder: builder.remove(FIRST_SIG)
)
case("chain-signed-by-another-key", "SIG-003", "The chain object is signed by a key that the reader does not have").bad(
    spoil=resign("chain.json", secret=SECOND)
)
case("manifest-signed-by-another-key", "SIG-003", "The manifest is signed by a key that the reader does not have").bad(
    spoil=resign(FIRST, secret=SECOND)
)
case(
    "manifest-signed-by-another-key-under-the-name-of-the-first",
    "SIG-003",
    "The manifest is signed by another key under the name of the trusted one",
).bad(spoil=resign(FIRST, secret=SECOND, keyid=keyid(SECRET)))
case(
    "manifest-signed-under-the-name-of-the-other-key",
    "SIG-003",
    "Both keys are trusted, and the signature is by the first under the name of the second",
).bad(twin="signed-by-one-of-two-keys", spoil=resign(FIRST, keyid=keyid(SECOND)), input=BOTH)
case("signature-of-another-object", "SIG-003", "The signature of version 0's manifest stands beside version 1's").bad(
    spoil=lambda builder: builder.put(FIRST_SIG, builder.get(f"{manifest_name(0)}.sig"))
)
case(
    "manifest-altered-after-signing", "SIG-003", "One digit of the manifest's time is another than when it was signed"
).bad(spoil=changed(replaced(b'12:00:00Z"', b'12:00:01Z"')))
case(
    "manifest-with-a-space-after-signing", "SIG-003", "A space was put after the manifest when it was signed already"
).bad(spoil=changed(lambda data: data + b" "))


# -- the 64 bytes ------------------------------------------------------------------------------------------------------

for at, where in ((0, "first"), (31, "32nd"), (32, "33rd"), (63, "last")):
    case(
        f"signature-with-a-bit-of-its-{where}-byte-changed",
        "SIG-003",
        f"One bit of the {where} byte of the signature is another",
    ).bad(spoil=resigned_with(FIRST, flipped(at)))


def order_added(sig: bytes) -> bytes:
    return sig[:32] + (int.from_bytes(sig[32:], "little") + ed25519.ORDER).to_bytes(32, "little")


case(
    "signature-with-the-order-added",
    "SIG-003",
    "The second half of the signature is greater by the order of the base point",
).bad(spoil=resigned_with(FIRST, order_added))
case("signature-of-zeros", "SIG-003", "The signature is 64 zero bytes").bad(
    spoil=resigned_with(FIRST, lambda sig: bytes(64))
)


def over_the_digest(builder: Builder) -> None:
    digest = hashlib.sha256(builder.get(FIRST)).digest()
    resign(FIRST, sig=base64_of(signature(SECRET, digest)))(builder)


case("signature-of-the-digest", "SIG-003", "The signature is over the manifest's SHA-256 instead of its bytes").bad(
    spoil=over_the_digest
)

# -- the signature object ----------------------------------------------------------------------------------------------

for slug, title, how in (
    ("signature-in-hex", "`sig` is in hex", bytes.hex),
    ("signature-of-63-bytes", "`sig` has 63 bytes", lambda sig: sig[:63]),
    ("signature-of-65-bytes", "`sig` has 65 bytes", lambda sig: sig + b"\0"),
    ("signature-without-padding", "`sig` lacks its padding", lambda sig: base64_of(sig).rstrip("=")),
    ("signature-with-a-line-feed", "`sig` ends with a line feed after the padding", lambda sig: base64_of(sig) + "\n"),
):
    case(slug, "SIG-003", title).bad("malformed", spoil=resigned_with(FIRST, how))


def in_the_alphabet_of_urls(sig: bytes) -> str:
    text = base64_of(sig).replace("+", "-").replace("/", "_")
    return text if "-" in text or "_" in text else f"-{text[1:]}"


case("signature-in-the-alphabet-of-urls", "SIG-003", "`sig` has characters of the alphabet of RFC 4648 section 5").bad(
    "malformed", spoil=resigned_with(FIRST, in_the_alphabet_of_urls)
)
for slug, error, title, rewritten in (
    ("that-is-no-json", "malformed", "is no JSON", lambda data: data[:-1]),
    ("without-keyid", "malformed", "names no key", replaced(b'"keyid"', b'"key"')),
    ("without-sig", "malformed", "has no `sig`", replaced(b'"sig"', b'"signature"')),
    ("of-more-than-64-kib", "limit", "has 65,537 bytes", lambda data: data.ljust(65537)),
):
    case(f"signature-{slug}", "SIG-003", f"The signature object {title}").bad(
        error, spoil=changed(rewritten, FIRST_SIG)
    )
case("signature-of-a-later-format", "SIG-003", "The signature object is of a later format").bad(
    "unsupported", spoil=resign(FIRST, tensordelta="2.0")
)
case("signature-of-64-kib", "LIM-005", "A signature object of 65,536 bytes").good(
    spoil=changed(lambda data: data.ljust(65536), FIRST_SIG)
)

# -- before parsing ----------------------------------------------------------------------------------------------------


def no_json(builder: Builder, name: str) -> None:
    """Replace an object by one that is no JSON and is signed by another key."""
    builder.put(name, b"{")
    resign(name, secret=SECOND)(builder)


for slug, what, name in (("manifest", "A manifest", FIRST), ("chain", "A chain object", "chain.json")):
    case(
        f"{slug}-that-is-no-json-signed-by-another-key",
        "SIG-001",
        f"{what} that is no JSON is signed by another key: its signature is verified before it is parsed",
    ).bad(spoil=partial(no_json, name=name))


def copied(builder: Builder) -> None:
    for end in ("", ".sig"):
        builder.put(f"{FIRST}{end}", builder.get(f"{manifest_name(0)}{end}"))


case(
    "signed-manifest-under-another-name",
    "OBJ-004",
    "Version 0's manifest and its signature were copied to the name of version 1's",
).bad("malformed", spoil=copied)

# -- newest, and planning ----------------------------------------------------------------------------------------------


def unsigned_newest() -> Builder:
    builder = signed(line(walk(3)), SECOND_VERSION)
    del builder.models[2]  # so that 1 is the newest
    return builder


case(
    "unsigned-newest-passed-over",
    "SIG-004",
    "The highest manifest has no signature, so that the one before is the newest version",
).good(chain=unsigned_newest, to=None)
case("signed-newest", "SIG-004", "The newest of two signed versions").good(to=None)
case(
    "newest-signed-by-another-key", "SIG-003", "The highest manifest is signed by another key, and is not passed over"
).bad(twin="signed-newest", spoil=resign(FIRST, secret=SECOND), to=None)

BEFORE, AFTER, OTHER = twins(2)
SHORTCUT = shortcut_name(1, 0)


def with_shortcut(expected: Model, spoil: Callable[[Builder], Any] = nothing) -> Builder:
    """A shortcut with fewer bytes than the version's own edge, to other words with the same fingerprint."""
    builder = Builder()
    builder.full(0, BEFORE)
    move(builder, 1, AFTER, 0, size=1500)
    move(builder, 1, OTHER, 0, size=1200, shortcut="")
    builder.models[1] = expected
    signed(builder)
    spoil(builder)
    return builder


shortcut = Area("signatures", with_shortcut, common=COMMON)
shortcut(
    "signed-shortcut", "RTE-001 SIG-001", "A signed shortcut has fewer bytes than the manifest, and is taken"
).good(expected=OTHER)
shortcut(
    "unsigned-shortcut-passed-over",
    "SIG-004",
    "A shortcut without signature has fewer bytes than the manifest, and is not taken",
).good(expected=AFTER, spoil=lambda builder: builder.remove(f"{SHORTCUT}.sig"))
shortcut(
    "shortcut-signed-by-another-key",
    "SIG-001 SIG-003",
    "A shortcut signed by another key has fewer bytes than the manifest, and is not taken",
).good(expected=AFTER, spoil=resign(SHORTCUT, secret=SECOND))


def with_skip() -> Builder:
    """Versions 0 to 2, of which 1 is not signed, and a skip delta."""
    states = walk(3)
    builder = line(states)
    move(builder, 2, states[2], 0, size=9000, shortcut="")
    return signed(builder, FIRST)


case("signed-on-the-way", "SIG-001", "A route over three signed manifests").good(count=3, held=None, to=2)
case(
    "unsigned-on-the-way-passed-over",
    "SIG-004",
    "A manifest on the way has no signature, and a signed skip delta leads around it",
).good(chain=with_skip, to=2)
ON_THE_WAY: dict[str, Any] = {"twin": "signed-on-the-way", "count": 3, "held": None, "to": 2}
case(
    "unsigned-on-the-way",
    "SIG-004 RTE-006",
    "A manifest on the way has no signature, and no other route reaches the target",
).bad("missing", spoil=lambda builder: builder.remove(FIRST_SIG), **ON_THE_WAY)
case(
    "on-the-way-signed-by-another-key",
    "SIG-001 RTE-006",
    "A manifest on the way is signed by another key, and no other route reaches the target",
).bad("missing", spoil=resign(FIRST, secret=SECOND), **ON_THE_WAY)


def forged_base() -> Builder:
    """An unsigned manifest of version 1 that has another state; 2 starts from the true one."""
    builder = line(walk(3))
    builder.put(FIRST, line([little(), little(7)]).get(FIRST))
    return signed(builder, FIRST)


case(
    "unsigned-base-that-disagrees",
    "SIG-004",
    "The base's own manifest is without signature and has another fingerprint, which says nothing about signed edges",
).good(chain=forged_base, held=1, to=2)

# -- back, and changed versions ----------------------------------------------------------------------------------------

IN_ORDER = "read-signed-versions-in-order"
scenes = Area("signatures", partial(signed_line, 3), common={"level": "signed"})


def keyed(scene: Scene, to: int | None, state: State, **how: Any) -> None:
    scene.read(to, state, keys=trusted(), **how)


def in_order(scene: Scene) -> None:
    keyed(scene, 0, 0, held=None)
    keyed(scene, 1, 1)
    keyed(scene, 1, 1)
    keyed(scene, None, 2)


scenes(IN_ORDER, "SIG-005 SIG-006", "Signed versions are read one after the other, one of them twice").play(in_order)
case("older-than-the-version-held", "SIG-005", "A version older than the one held is asked for").bad(held=1, to=0)


def back(scene: Scene) -> None:
    keyed(scene, 2, 2, held=None)
    keyed(scene, 1, 2, error="untrusted")
    keyed(scene, 1, 1, back=True)


scenes(
    "older-than-a-version-read-before",
    "SIG-005",
    "A version older than the one read before is asked for, and then asked for again by a user who allows it",
).play(back, twin=IN_ORDER)


def rolled_back(scene: Scene) -> None:
    keyed(scene, None, 2, held=None)
    scene.remove(SECOND_VERSION, f"{SECOND_VERSION}.sig")
    keyed(scene, None, 2, error="untrusted")


scenes(
    "newest-older-than-before",
    "SIG-005",
    "The manifest of the version read before is gone, so that the newest is an older one",
).play(rolled_back, twin=IN_ORDER)


def replaced_by(other: Callable[[Model], Model]) -> Callable[[Scene], None]:
    """Version 1 is published and signed again with another state."""

    def scene(scene: Scene) -> None:
        keyed(scene, 1, 1, held=None)
        states = walk(2)
        anew = signed(line([states[0], other(states[1])]))
        scene.put({name: data for name, data in anew.objects.items() if scene.builder.objects.get(name) != data})
        keyed(scene, 1, 1, error="untrusted")

    return scene


scenes(
    "version-read-before-has-another-fingerprint",
    "SIG-006",
    "The manifest of a version that was read before is another now, signed, with another fingerprint",
).play(replaced_by(lambda model: little(9)), twin=IN_ORDER)
scenes(
    "version-read-before-has-another-layout",
    "SIG-006",
    "The manifest of a version that was read before is another now, signed, with the same words in another shape",
).play(replaced_by(lambda model: model | {"a.weight": model["a.weight"]._replace(shape=(6, 4))}), twin=IN_ORDER)
