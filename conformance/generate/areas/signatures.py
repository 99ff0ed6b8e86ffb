"""Signatures (SPEC.md section 14)."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from functools import partial
from typing import Any

from generate import ed25519
from generate.builder import Builder, manifest_name, nothing, shortcut_name
from generate.edits import Area
from generate.model import Model
from generate.scenes import Scene, State, line, little, move, twins, walk
from generate.signing import (
    FIRST,
    SECOND,
    SECOND_VERSION,
    SECRET,
    document,
    message,
    resign,
    resigned_over,
    resigned_with,
    sign,
    signature,
    signature_name,
    signed,
    signed_line,
    trusted,
    unsign,
)
from generate.standard import flipped, replaced

COMMON = {"level": "signed", "verify": None, "input": {"keys": trusted()}}
BOTH: dict[str, Any] = {"keys": trusted(SECRET, SECOND)}
TWO = {**BOTH, "threshold": 2}
case = Area("signatures", signed_line, "signed-by-the-key", COMMON, "untrusted")

# -- what is signed ----------------------------------------------------------------------------------------------------

case("signed-by-the-key", "SIG-001", "The chain and its manifests are signed by the key that the reader trusts").good(
    verify=True
)
case("signed-read-from-nothing", "SIG-001", "A route of two signed manifests, with nothing held").good(held=None)
case(
    "signed-by-one-of-two-keys",
    "SIG-011",
    "One manifest is signed by another trusted key than the chain object and the other manifest",
).good(spoil=resign(FIRST, SECOND), input=BOTH, held=None)


def over_bytes_as_stored() -> Builder:
    """The manifests are signed as they are stored, with white space and escapes."""
    builder = Builder()
    states = walk(2)
    builder.full(0, states[0], text=lambda data: b"\n" + data.replace(b'"layout"', b'"l\\u0061yout"') + b"\n ")
    builder.delta(1, states[1], 0, text=lambda data: data.replace(b",", b" ,\t"))
    return signed(builder)


def in_other_bytes(builder: Builder) -> None:
    """The signature of the first manifest has the same members in the reverse order, and others."""
    name = signature_name(builder, FIRST)
    members = {**json.loads(builder.get(name)), "keyid": "trainer-1", "made": {}}
    builder.put(name, json.dumps(dict(reversed(members.items())), indent=2).encode())


case(
    "signed-over-bytes-as-stored",
    "SIG-011",
    "The signature is over the manifest's bytes with their white space and escapes",
).good(chain=over_bytes_as_stored, held=None)
case(
    "signature-with-an-unknown-field", "SIG-011", "A signature object has a field that is not known, and white space"
).good(spoil=resign(FIRST, colour=[1e3]))
case(
    "signature-in-other-bytes", "SIG-011", "A signature object's members stand in another order, among unknown ones"
).good(spoil=in_other_bytes)


def garbage() -> Builder:
    builder = signed(line(walk(2)))
    for name in [name for name in builder.objects if name.startswith("signatures/")]:
        builder.put(name, b"garbage")
    return builder


case(
    "signatures-without-keys", "SIG-007", "Without keys signature objects are ignored, even those that are no JSON"
).good(chain=garbage, level="reader-core", input=None)


# -- chain and manifests that were asked for ---------------------------------------------------------------------------
def changed(how: Callable[[bytes], bytes], name: str = FIRST) -> Callable[[Builder], None]:
    """Changes an object but not its signature."""
    return lambda builder: builder.change(name, how)


case("unsigned-chain", "SIG-012", "The chain object has no signature").bad(spoil=unsign("chain.json"))
case("unsigned-manifest-asked-for", "SIG-012", "The manifest that was asked for by its version has no signature").bad(
    spoil=unsign(FIRST)
)
case("chain-signed-by-another-key", "SIG-012", "The chain object is signed by a key that the reader does not have").bad(
    spoil=resign("chain.json", SECOND)
)
case("manifest-signed-by-another-key", "SIG-012", "The manifest is signed by a key that the reader does not have").bad(
    spoil=resign(FIRST, SECOND)
)


def under_the_name_of(secret: bytes, other: bytes) -> Callable[[Builder], None]:
    """The signature of `other` has the name of the one of `secret`."""

    def spoil(builder: Builder) -> None:
        unsign(FIRST)(builder)
        sig = signature(other, message(FIRST, builder.get(FIRST)))
        builder.put(signature_name(builder, FIRST, secret), document(sig))

    return spoil


case(
    "manifest-signed-by-another-key-under-the-name-of-the-first",
    "SIG-011",
    "The manifest is signed by another key under the name of the trusted one",
).bad(spoil=under_the_name_of(SECRET, SECOND))
case(
    "manifest-signed-under-the-name-of-the-other-key",
    "SIG-011",
    "Both keys are trusted, and the signature is by the first under the name of the second",
).bad(twin="signed-by-one-of-two-keys", spoil=under_the_name_of(SECOND, SECRET), input=BOTH)


def of_another_object(builder: Builder) -> None:
    builder.put(signature_name(builder, FIRST), builder.get(signature_name(builder, manifest_name(0))))


case("signature-of-another-object", "SIG-011", "The signature of version 0's manifest stands for version 1's").bad(
    spoil=of_another_object
)
case(
    "manifest-altered-after-signing", "SIG-011", "One digit of the manifest's time is another than when it was signed"
).bad(spoil=changed(replaced(b'12:00:00Z"', b'12:00:01Z"')))
case(
    "manifest-with-a-space-after-signing", "SIG-011", "A space was put after the manifest when it was signed already"
).bad(spoil=changed(lambda data: data + b" "))

# -- as many keys as are asked for -------------------------------------------------------------------------------------


def by_both(spoil: Callable[[Builder], Any] = nothing) -> Builder:
    """A chain that two keys have signed."""
    builder = signed(signed(line(walk(2))), secret=SECOND)
    spoil(builder)
    return builder


both = Area("signatures", by_both, "signed-by-two-of-two-keys", {**COMMON, "input": TWO}, "untrusted")
both("signed-by-two-of-two-keys", "SIG-011", "Two signatures are asked for, and two keys have signed").good(held=None)
both("signed-by-one-of-the-two-that-are-asked-for", "SIG-011 SIG-012", "One of the two keys has not signed").bad(
    spoil=unsign(FIRST)
)
both("chain-signed-by-one-of-the-two", "SIG-011 SIG-012", "One of the two keys has not signed the chain object").bad(
    spoil=unsign("chain.json")
)
both("one-key-given-twice", "SIG-011", "A key that the user gives twice counts once: two others are there").good(
    input={"keys": [*trusted(SECRET), *trusted(SECRET, SECOND)], "threshold": 2}
)
both(
    "signed-twice-by-a-key-given-twice",
    "SIG-011",
    "A key that the user gives twice counts once, and the other key has not signed",
).bad(spoil=unsign(FIRST), input={"keys": [*trusted(SECOND), *trusted(SECOND, SECRET)], "threshold": 2})
both(
    "broken-signature-beside-a-good-one",
    "SIG-011",
    "Both keys are trusted, and one is asked for; the first key's signatures are broken, the second's are good",
).good(
    spoil=lambda builder: [
        builder.put(signature_name(builder, name), b"{") for name in ("chain.json", manifest_name(0), FIRST)
    ],
    input=BOTH,
    held=None,
)

# -- the name is signed as well ----------------------------------------------------------------------------------------

FULL = shortcut_name(1, None)


def with_full(spoil: Callable[[Builder], Any] = nothing) -> Builder:
    """A signed chain with a full shortcut to version 1."""
    builder = line(walk(2))
    move(builder, 1, walk(2)[1], None, shortcut="", size=9000)
    signed(builder)
    spoil(builder)
    return builder


named = Area("signatures", with_full, "signed-with-a-full-shortcut", COMMON, "untrusted")
named("signed-with-a-full-shortcut", "SIG-001", "A signed chain with a full shortcut").good()
named(
    "shortcut-copied-over-its-version",
    "SIG-011",
    "A signed shortcut was copied to the name of its version's manifest: signed is the name as well",
).bad(spoil=lambda builder: builder.put(FIRST, builder.get(FULL)))


def with_its_signature(builder: Builder) -> None:
    name = signature_name(builder, FULL)
    builder.put(FIRST, builder.get(FULL))
    builder.put(signature_name(builder, FIRST), builder.get(name))


named(
    "shortcut-copied-over-its-version-with-its-signature",
    "SIG-011",
    "A signed shortcut was copied to the name of its version's manifest, and its signature with it",
).bad(spoil=with_its_signature)
for slug, title, instead in (
    ("signature-without-the-name", "over the manifest's bytes alone", lambda data: data),
    ("signature-of-a-name-and-no-line-feed", "over name and bytes without the line feed between them",
     lambda data: message(FIRST, data).replace(b"\n", b"", 1)),
    ("signature-without-the-prefix", "over name and bytes without `tensordelta:`",
     lambda data: message(FIRST, data).removeprefix(b"tensordelta:")),
    ("signature-of-the-digest", "over the SHA-256 of the message instead of the message",
     lambda data: hashlib.sha256(message(FIRST, data)).digest()),
):  # fmt: skip
    case(slug, "SIG-011", f"The signature is {title}").bad(spoil=resigned_over(FIRST, instead))

# -- the 64 bytes ------------------------------------------------------------------------------------------------------

for at, where in ((0, "first"), (31, "32nd"), (32, "33rd"), (63, "last")):
    case(
        f"signature-with-a-bit-of-its-{where}-byte-changed",
        "SIG-011",
        f"One bit of the {where} byte of the signature is another",
    ).bad(spoil=resigned_with(FIRST, flipped(at)))


def order_added(sig: bytes) -> bytes:
    return sig[:32] + (int.from_bytes(sig[32:], "little") + ed25519.ORDER).to_bytes(32, "little")


case(
    "signature-with-the-order-added",
    "SIG-011",
    "The second half of the signature is greater by the order of the base point",
).bad(spoil=resigned_with(FIRST, order_added))
case("signature-of-zeros", "SIG-011", "The signature is 64 zero bytes").bad(
    spoil=resigned_with(FIRST, lambda sig: bytes(64))
)

# -- the signature object ----------------------------------------------------------------------------------------------


def base64_of(sig: bytes) -> str:
    return base64.b64encode(sig).decode()


for slug, title, how in (
    ("signature-in-hex", "`sig` is in hex", bytes.hex),
    ("signature-of-63-bytes", "`sig` has 63 bytes", lambda sig: sig[:63]),
    ("signature-of-65-bytes", "`sig` has 65 bytes", lambda sig: sig + b"\0"),
    ("signature-without-padding", "`sig` lacks its padding", lambda sig: base64_of(sig).rstrip("=")),
    ("signature-with-a-line-feed", "`sig` ends with a line feed after the padding", lambda sig: base64_of(sig) + "\n"),
):
    case(slug, "SIG-011", title).bad(spoil=resigned_with(FIRST, how))


def with_an_unused_bit(sig: bytes) -> str:
    text = base64_of(sig)
    return f"{text[:85]}{chr(ord(text[85]) + 1)}=="  # A, Q, g, w: the next letter has the lowest unused bit


case("signature-with-an-unused-bit", "SIG-011", "A bit of `sig` that belongs to no byte is 1").bad(
    spoil=resigned_with(FIRST, with_an_unused_bit)
)


def in_the_alphabet_of_urls(sig: bytes) -> str:
    text = base64_of(sig).replace("+", "-").replace("/", "_")
    return text if "-" in text or "_" in text else f"-{text[1:]}"


case("signature-in-the-alphabet-of-urls", "SIG-011", "`sig` has characters of the alphabet of RFC 4648 section 5").bad(
    spoil=resigned_with(FIRST, in_the_alphabet_of_urls)
)


def rewritten(how: Callable[[bytes], bytes]) -> Callable[[Builder], None]:
    """Changes the signature object of version 1's manifest."""
    return lambda builder: builder.change(signature_name(builder, FIRST), how)


for slug, title, change in (
    ("that-is-no-json", "is no JSON", lambda data: data[:-1]),
    ("without-sig", "has no `sig`", replaced(b'"sig"', b'"signature"')),
    ("of-more-than-64-kib", "has 65,537 bytes", lambda data: data.ljust(65537)),
    ("of-a-later-format", "is of a later format", replaced(b'"1.0-rc.1"', b'"2.0"')),
):
    case(f"signature-{slug}", "SIG-011", f"The signature object {title}: it counts for nothing").bad(
        spoil=rewritten(change)
    )
case("signature-of-64-kib", "LIM-005", "A signature object of 65,536 bytes").good(
    spoil=rewritten(lambda data: data.ljust(65536))
)

# -- before parsing ----------------------------------------------------------------------------------------------------


def no_json(builder: Builder, name: str) -> None:
    """Replace an object by one that is no JSON and is signed by another key."""
    builder.put(name, b"{")
    sign(builder, name, SECOND)


for slug, what, name in (("manifest", "A manifest", FIRST), ("chain", "A chain object", "chain.json")):
    case(
        f"{slug}-that-is-no-json-signed-by-another-key",
        "SIG-001",
        f"{what} that is no JSON is signed by another key: its signature is verified before it is parsed",
    ).bad(spoil=partial(no_json, name=name))


def copied(builder: Builder) -> None:
    builder.put(FIRST, builder.get(manifest_name(0)))
    sign(builder, FIRST)


case(
    "signed-manifest-of-another-version",
    "OBJ-004",
    "Version 0's manifest was copied to the name of version 1's, and a key holder signed that",
).bad("malformed", spoil=copied)

# -- newest, and planning ----------------------------------------------------------------------------------------------


def unsigned_newest() -> Builder:
    builder = signed(line(walk(3)), SECOND_VERSION)
    del builder.models[2]  # so that 1 is the newest
    return builder


case(
    "unsigned-newest-passed-over",
    "SIG-015",
    "The highest manifest has no signature, so that the one before is the newest version",
).good(chain=unsigned_newest, to=None)
case("signed-newest", "SIG-015", "The newest of two signed versions").good(to=None)


def all_unsigned() -> Builder:
    """Two versions of which no manifest is signed."""
    builder = signed(line(walk(2)))
    unsign(manifest_name(0))(builder)
    unsign(FIRST)(builder)
    return builder


case(
    "newest-of-a-chain-without-signed-manifests",
    "SIG-015 OBJ-008",
    "The newest version is asked for, and no manifest is signed",
).bad(["missing", "untrusted"], twin="signed-newest", chain=all_unsigned, to=None)


def newest_of_another() -> Builder:
    builder = signed(line(walk(3)), SECOND_VERSION)
    sign(builder, SECOND_VERSION, SECOND)
    del builder.models[2]
    return builder


case(
    "newest-signed-by-another-key-passed-over",
    "SIG-011 SIG-015",
    "The highest manifest is signed by another key only, so that the one before is the newest version",
).good(chain=newest_of_another, to=None)


def some_unsigned(count: int) -> Builder:
    """Versions 0 and 1, and after them manifests that are no JSON and that nobody signed."""
    builder = signed(line(walk(2)))
    for version in range(2, 2 + count):
        builder.put(manifest_name(version), b"{")
    return builder


case(
    "many-unsigned-newest-passed-over",
    "SIG-015",
    "The 63 highest manifests are no JSON and not signed: the one before is the newest version",
).good(chain=partial(some_unsigned, 63), to=None)

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
    "SIG-015",
    "A shortcut without signature has fewer bytes than the manifest, and is not taken",
).good(expected=AFTER, spoil=unsign(SHORTCUT))
shortcut(
    "shortcut-signed-by-another-key",
    "SIG-001 SIG-015",
    "A shortcut signed by another key has fewer bytes than the manifest, and is not taken",
).good(expected=AFTER, spoil=resign(SHORTCUT, SECOND))


def with_skip() -> Builder:
    """Versions 0 to 2, of which 1 is not signed, and a skip delta."""
    states = walk(3)
    builder = line(states)
    move(builder, 2, states[2], 0, size=9000, shortcut="")
    return signed(builder, FIRST)


case("signed-on-the-way", "SIG-001", "A route over three signed manifests").good(count=3, held=None, to=2)
case(
    "unsigned-on-the-way-passed-over",
    "SIG-015",
    "A manifest on the way has no signature, and a signed skip delta leads around it",
).good(chain=with_skip, to=2)
ON_THE_WAY: dict[str, Any] = {"twin": "signed-on-the-way", "count": 3, "held": None, "to": 2}
case(
    "unsigned-on-the-way",
    "SIG-015 RTE-006",
    "A manifest on the way has no signature, and no other route reaches the target",
).bad(["missing", "untrusted"], spoil=unsign(FIRST), **ON_THE_WAY)
case(
    "on-the-way-signed-by-another-key",
    "SIG-001 RTE-006",
    "A manifest on the way is signed by another key, and no other route reaches the target",
).bad(["missing", "untrusted"], spoil=resign(FIRST, SECOND), **ON_THE_WAY)


def forged_base() -> Builder:
    """An unsigned manifest of version 1 that has another state; 2 starts from the true one."""
    builder = line(walk(3))
    builder.put(FIRST, line([little(), little(7)]).get(FIRST))
    return signed(builder, FIRST)


case(
    "unsigned-base-that-disagrees",
    "SIG-015",
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
    scene.remove(SECOND_VERSION)
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
