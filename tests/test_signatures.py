"""Signatures: whose chains a reader accepts, that nothing leads it back, and what a writer leaves signed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.hazmat.primitives.serialization import PublicFormat as Public
from gallery import CHAIN, Builder, MemoryStore, as_state, digest, manifest_name, shortcut_name
from safetensors.numpy import load_file, save_file

import tensordelta as td
from generate.scenes import line, little, move, twins, walk
from tensordelta.cli import main
from tensordelta.format.keys import PublicKey, SecretKey
from tensordelta.format.signature import sign, verify
from tensordelta.write.keys import public_key, secret_key, trusted, write_key_pair
from tensordelta.write.signing import SigningStore

#: The first two secret keys of RFC 8032, section 7.1, and their public keys.
SECRET = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"
PUBLIC = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
OTHER_SECRET = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"
OTHER_PUBLIC = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
KEYID = "21fe31dfa154a261626bf854046fd2271b7bed4b6abe45aa58877ef47f9721b9"

#: chain.json of appendix A, and its signature in section 14.
WORKED = b'{"tensordelta":"1.0","chain":"5f0c8a52-3a1e-4b7d-9c64-0d2f6b1e7a90","created":"2026-11-20T12:00:00Z"}'
SIG = "264fnSNSVAgNct4ongDSJ+c4bVkWz22+fjzE+65mBntbl2oRg9KUEzHqq2LqkDVNhdWU13gsGRGqflxWpYCNCA=="

FIRST, SECOND = manifest_name(1), manifest_name(2)
KEYS = {KEYID: PublicKey(bytes.fromhex(PUBLIC))}
#: The id of another chain.
ANOTHER = CHAIN[:-1].encode() + b"1"


def sig(name: str) -> str:
    return f"{name}.sig"


def signature_of(data: bytes, secret: str = SECRET, **members: Any) -> bytes:
    """A signature object made without the package."""
    key = ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(secret))
    keyid = digest(key.public_key().public_bytes_raw())
    document = {"tensordelta": "1.0", "keyid": keyid, "sig": base64.b64encode(key.sign(data)).decode()}
    return json.dumps(document | members).encode()


def is_member(name: str) -> bool:
    return name == "chain.json" or (name.startswith(("manifests/", "shortcuts/")) and not name.endswith(".sig"))


def sign_all(objects: dict[str, bytes], *but: str, secret: str = SECRET) -> None:
    for name in [*objects]:
        if is_member(name) and name not in but:
            objects[sig(name)] = signature_of(objects[name], secret)


@cache
def _line(count: int) -> dict[str, bytes]:
    objects = dict(line(walk(count)).objects)
    sign_all(objects)
    return objects


def store_of(count: int = 3) -> MemoryStore:
    """A signed chain: version 0, full, and deltas from each to the next."""
    return MemoryStore(dict(_line(count)))


def state(version: int) -> td.State:
    return as_state(walk(version + 1)[version])


def trusting(store: Any, *keys: str, **options: Any) -> td.Chain:
    return td.open(store, threads=1, trusted_keys=keys or (PUBLIC,), **options)


# -- signature objects -------------------------------------------------------------------------------------------------


def test_the_example_of_section_14() -> None:
    made = sign(WORKED, secret_key(SECRET))
    assert made == f'{{"tensordelta":"1.0","keyid":"{KEYID}","sig":"{SIG}"}}'.encode()
    spec = (Path(__file__).parents[1] / "SPEC.md").read_text()
    example = spec[spec.index("<!-- example: signature valid -->") :].split("```json\n")[1].split("```")[0].encode()
    for each in (made, example, b" \n" + made + b"\t", made.replace(b'"sig"', b'"more": [1e9, null], "sig"')):
        assert verify(WORKED, each, KEYS, object="chain.json").raw.hex() == PUBLIC


@pytest.mark.parametrize("spoilt", [WORKED + b" ", WORKED[:-1], b"", WORKED.replace(b"12:00:00Z", b"12:00:01Z")])
def test_a_signature_is_over_the_bytes_as_they_are(spoilt: bytes) -> None:
    with pytest.raises(td.UntrustedError) as caught:
        verify(spoilt, signature_of(WORKED), KEYS, object="chain.json")
    assert (caught.value.object, caught.value.rule) == ("chain.json", "TD-SIG-003")


@pytest.mark.parametrize("at", range(0, 64, 7))
def test_every_byte_of_a_signature_counts(at: int) -> None:
    raw = bytearray(base64.b64decode(SIG))
    raw[at] ^= 1
    with pytest.raises(td.UntrustedError):
        verify(WORKED, signature_of(WORKED, sig=base64.b64encode(raw).decode()), KEYS, object="chain.json")


@pytest.mark.parametrize(
    ("members", "error"),
    [
        ({"keyid": "trainer-1"}, "untrusted"),
        ({"keyid": digest(bytes.fromhex(OTHER_PUBLIC))}, "untrusted"),
        ({"keyid": 7}, "malformed"),
        ({"keyid": None}, "malformed"),
        ({"sig": base64.b64decode(SIG).hex()}, "malformed"),
        ({"sig": SIG.rstrip("=")}, "malformed"),
        ({"sig": SIG + "\n"}, "malformed"),
        ({"sig": " " + SIG}, "malformed"),
        ({"sig": SIG.replace("+", "-").replace("/", "_")}, "malformed"),
        ({"sig": base64.b64encode(bytes(63)).decode()}, "malformed"),
        ({"sig": base64.b64encode(bytes(65)).decode()}, "malformed"),
        ({"sig": SIG[:-3] + "B=="}, "malformed"),  # bits beyond the 64 bytes
        ({"sig": ""}, "malformed"),
        ({"tensordelta": "2.0"}, "unsupported"),
        ({"tensordelta": "1"}, "malformed"),
        ({"padding": " " * 65536}, "limit"),
    ],
    ids=lambda each: each if isinstance(each, str) else "-".join(each),
)
def test_signature_objects_that_are_refused(members: dict[str, Any], error: str) -> None:
    both = KEYS | {digest(bytes.fromhex(OTHER_PUBLIC)): PublicKey(bytes.fromhex(OTHER_PUBLIC))}
    keys = KEYS if members.get("keyid") == "trainer-1" else both
    with pytest.raises(td.ERRORS[error]) as caught:
        verify(WORKED, signature_of(WORKED, **members), keys, object="manifests/x")
    assert caught.value.object == ("manifests/x" if error == "untrusted" else "manifests/x.sig")


def test_a_signature_object_needs_its_fields() -> None:
    for field in ("tensordelta", "keyid", "sig"):
        document = json.loads(signature_of(WORKED))
        del document[field]
        with pytest.raises(td.MalformedError):
            verify(WORKED, json.dumps(document).encode(), KEYS, object="chain.json")


# -- keys --------------------------------------------------------------------------------------------------------------

#: The first secret key as openssl writes it (RFC 8410), and its public key.
PKCS8 = b"""-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
"""
SPKI = b"""-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
-----END PUBLIC KEY-----
"""


def test_forms_of_keys(tmp_path: Path) -> None:
    files = {"hex": SECRET.upper().encode() + b"\n", "pem": b"Made by hand\n" + PKCS8}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    for each in (
        SECRET,
        f" {SECRET}\n",
        tmp_path / "hex",
        str(tmp_path / "pem"),
        bytes.fromhex(SECRET),
        PKCS8,
        PKCS8.decode(),
    ):
        assert secret_key(each).raw.hex() == SECRET
        assert secret_key(each).public.raw.hex() == PUBLIC
    (tmp_path / "spki").write_bytes(SPKI)
    (tmp_path / "raw").write_bytes(PUBLIC.encode())
    for other in (
        PUBLIC,
        PUBLIC.upper(),
        bytes.fromhex(PUBLIC),
        SPKI,
        SPKI.decode(),
        tmp_path / "spki",
        tmp_path / "raw",
    ):
        assert (public_key(other).raw.hex(), public_key(other).id) == (PUBLIC, KEYID)
    assert secret_key(SECRET).pem() == PKCS8 and public_key(PUBLIC).pem() == SPKI
    assert public_key(public_key(PUBLIC)) == public_key(SPKI)


def _pem(key: Any, encrypted: bool = False) -> bytes:
    algorithm = BestAvailableEncryption(b"secret") if encrypted else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, algorithm)


def test_what_is_no_key(tmp_path: Path) -> None:
    other = rsa.generate_private_key(65537, 1024)
    own = ed25519.Ed25519PrivateKey.from_private_bytes(bytes.fromhex(SECRET))
    cut = PKCS8.replace(b"MC4CAQ", b"MC4C")
    for data, says in {
        SECRET[:-1]: "hex digits",
        SECRET + "00": "hex digits",
        "": "hex digits",
        SPKI: "public key",
        _pem(other): "another kind",
        _pem(own, encrypted=True): "encrypted",
        cut: "cannot be read",
        "\xff\x00": "hex digits",
    }.items():
        (tmp_path / "key").write_bytes(data if isinstance(data, bytes) else data.encode("latin-1"))
        with pytest.raises(ValueError, match=says) as caught:
            secret_key(tmp_path / "key")
        assert SECRET[:8] not in str(caught.value) and str(tmp_path / "key") in str(caught.value)
    for data, says in {
        PKCS8: "secret key",
        other.public_key().public_bytes(Encoding.PEM, Public.SubjectPublicKeyInfo): "another kind",
        PUBLIC.encode()[1:]: "hex digits",
        bytes(31): "hex digits",
        SPKI.replace(b"MCow", b"MCo"): "cannot be read",
    }.items():
        with pytest.raises(ValueError, match=says):
            public_key(data)
    with pytest.raises(FileNotFoundError):
        public_key("nowhere.pub")
    for raw in (bytes(31), bytes(33)):
        for kind in (PublicKey, SecretKey):
            with pytest.raises(ValueError, match="32 bytes"):
                kind(raw)


def test_a_secret_key_is_in_no_representation() -> None:
    key = secret_key(SECRET)
    shown = f"{key!r} {key} {key.public!r}"
    assert SECRET not in shown and repr(bytes.fromhex(SECRET))[2:-1] not in shown


def test_lists_of_keys(tmp_path: Path) -> None:
    assert trusted([PUBLIC, bytes.fromhex(OTHER_PUBLIC)]).keys() == {KEYID, digest(bytes.fromhex(OTHER_PUBLIC))}
    assert trusted({"trainer é 1": PUBLIC})["trainer é 1"].raw.hex() == PUBLIC
    with pytest.raises(ValueError, match="no trusted key"):
        td.open(store_of(), trusted_keys=[])  # by mistake, perhaps: it must not read without signatures
    with pytest.raises(ValueError, match="a list of keys"):
        td.open(store_of(), trusted_keys=PUBLIC)
    for options in ({"allow_rollback": True}, {"max_age": 60.0}):
        with pytest.raises(ValueError, match="go with trusted keys"):
            td.open(store_of(), **options)
    with pytest.raises(ValueError, match="seconds old"):
        trusting(store_of(), max_age=-1.0)


def test_a_new_pair_of_keys(tmp_path: Path) -> None:
    public, beside = write_key_pair(tmp_path / "key")
    assert beside == tmp_path / "key.pub"
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o600
    assert secret_key(tmp_path / "key").public == public_key(beside) == public
    contents = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(FileExistsError):
        write_key_pair(tmp_path / "key")
    (tmp_path / "other.pub").write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        write_key_pair(tmp_path / "other")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == contents | {"other.pub": b"mine"}
    assert write_key_pair(tmp_path / "second")[0] != public


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_openssl_and_the_package_understand_each_other(tmp_path: Path) -> None:
    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)

    openssl("genpkey", "-algorithm", "ed25519", "-out", "theirs")
    openssl("pkey", "-in", "theirs", "-pubout", "-out", "theirs.pub")
    assert secret_key(tmp_path / "theirs").public == public_key(tmp_path / "theirs.pub")
    write_key_pair(tmp_path / "ours")
    openssl("pkey", "-in", "ours", "-pubout", "-out", "again.pub")
    assert (tmp_path / "again.pub").read_bytes() == (tmp_path / "ours.pub").read_bytes()


# -- readers -----------------------------------------------------------------------------------------------------------


def test_a_signed_chain_reads(tmp_path: Path) -> None:
    chain = trusting(store_of())
    assert chain.versions() == [0, 1, 2] and chain.newest == 2
    assert chain.load().equals(state(2))
    held = state(0)
    held.version, held.chain = 0, CHAIN
    chain = trusting(store_of())
    chain.prepare(held, 1).apply()
    assert held.equals(state(1))
    assert trusting(store_of()).pull(tmp_path / "out").version == 2
    assert trusting(store_of()).read(2, "a.weight").tobytes() == state(2)["a.weight"].tobytes()
    assert trusting(store_of()).load_part(["b.bias"], 2).layout.index.keys() == {"b.bias"}
    assert [row.version for row in chain.log()] == [0, 1, 2]
    assert trusting(store_of()).verify(deep=True).ok


#: What asks for a version by its number.
ASK: dict[str, Callable[[td.Chain, int, Path], object]] = {
    "load": lambda chain, version, _: chain.load(version),
    "prepare": lambda chain, version, _: chain.prepare(state(0), version),
    "pull": lambda chain, version, folder: chain.pull(folder, version),
    "read": lambda chain, version, _: chain.read(version, "a.weight"),
    "load_part": lambda chain, version, _: chain.load_part(["a.weight"], version),
    "plan": lambda chain, version, _: chain.plan(version),
    "plan from": lambda chain, version, _: chain.plan(version, 0),
    "manifest": lambda chain, version, _: chain.manifest(version),
    "layout": lambda chain, version, _: chain.layout(version),
}


@pytest.mark.parametrize("ask", ASK)
@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (lambda objects: objects.pop(sig(SECOND)), "TD-SIG-002"),
        (lambda objects: objects.update({sig(SECOND): signature_of(objects[SECOND], OTHER_SECRET)}), "TD-SIG-003"),
        (lambda objects: objects.update({sig(SECOND): objects[sig(FIRST)]}), "TD-SIG-003"),
        (lambda objects: objects.update({SECOND: objects[SECOND] + b" "}), "TD-SIG-003"),
        # Bytes that no parser accepts: the signature comes first.
        (lambda objects: objects.update({SECOND: b"{"}), "TD-SIG-003"),
    ],
    ids=["unsigned", "another key", "another's signature", "altered", "no JSON"],
)
def test_a_version_that_no_trusted_key_signed(
    ask: str, spoil: Callable[[dict[str, bytes]], object], rule: str, tmp_path: Path
) -> None:
    store = store_of()
    spoil(store.objects)
    with pytest.raises(td.UntrustedError) as caught:
        ASK[ask](trusting(store), 2, tmp_path / "out")
    assert (caught.value.object, caught.value.rule) == (SECOND, rule)
    assert not list((tmp_path / "out").glob("*.safetensors"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda objects: objects.pop("chain.json.sig"),
        lambda objects: objects.update({"chain.json.sig": signature_of(objects["chain.json"], OTHER_SECRET)}),
        lambda objects: objects.update({"chain.json": b"{"}),
        lambda objects: objects.update(
            {"chain.json": objects["chain.json"].replace(CHAIN.encode(), CHAIN[::-1].encode())}
        ),
    ],
    ids=["unsigned", "another key", "no JSON", "another id"],
)
def test_a_chain_object_that_no_trusted_key_signed(spoil: Callable[[dict[str, bytes]], object]) -> None:
    store = store_of()
    spoil(store.objects)
    with pytest.raises(td.UntrustedError) as caught:
        trusting(store)
    assert caught.value.object == "chain.json"


def test_two_objects_and_their_signatures_cannot_change_places() -> None:
    store = store_of()
    for end in ("", ".sig"):
        store.objects[f"{FIRST}{end}"], store.objects[f"{SECOND}{end}"] = (
            store.objects[f"{SECOND}{end}"],
            store.objects[f"{FIRST}{end}"],
        )
    for version in (1, 2):
        with pytest.raises(td.MalformedError) as caught:
            trusting(store).load(version)
        assert caught.value.rule == "TD-OBJ-004"


def test_trust_reaches_what_manifests_name() -> None:
    for prefix in ("packs/", "layouts/"):
        store = store_of(1)
        (name,) = (name for name in store.objects if name.startswith(prefix))
        store.objects[name] = store.objects[name].replace(b"a.weight", b"b.weight")[:-1] + b" "
        with pytest.raises(td.IntegrityError) as caught:
            trusting(store).load()
        assert caught.value.object == name


def test_a_signed_manifest_of_another_chain() -> None:
    store = store_of()
    data = store.objects[SECOND].replace(CHAIN.encode(), ANOTHER)
    store.objects |= {SECOND: data, sig(SECOND): signature_of(data)}
    with pytest.raises(td.ConflictError) as caught:
        trusting(store).load(2)
    assert caught.value.rule == "TD-OBJ-011"


def test_what_is_unsigned_is_passed_over() -> None:
    store = store_of()
    del store.objects[sig(SECOND)]
    chain = trusting(store)
    assert (chain.versions(), chain.newest) == ([0, 1], 1)
    assert chain.load().equals(state(1))
    assert [row.version for row in chain.log()] == [0, 1]
    with pytest.raises(TimeoutError):
        chain.wait(2, timeout=0)
    store.objects[sig(SECOND)] = signature_of(store.objects[SECOND])  # the signature follows its object
    assert chain.wait(2, timeout=0) == 2
    assert chain.load().equals(state(2))


def test_a_newest_version_of_another_key_is_not_passed_over() -> None:
    store = store_of()
    store.objects[sig(SECOND)] = signature_of(store.objects[SECOND], OTHER_SECRET)
    chain = trusting(store)
    assert chain.newest == 2
    with pytest.raises(td.UntrustedError):
        chain.load()


def skipping(*but: str) -> MemoryStore:
    """A signed chain of three versions and a cheap shortcut from 0 to 2, of which some are not signed."""
    builder = line(walk(3))
    move(builder, 2, walk(3)[2], 0, shortcut="")
    sign_all(builder.objects, *but)
    return MemoryStore(builder.objects)


SHORTCUT = shortcut_name(2, 0)


def test_planning_knows_of_what_is_signed_alone() -> None:
    assert trusting(skipping()).plan(2, 0).route == (SHORTCUT,)
    assert trusting(skipping(SHORTCUT)).plan(2, 0).route == (FIRST, SECOND)
    store = skipping()
    store.objects[sig(SHORTCUT)] = signature_of(store.objects[SHORTCUT], OTHER_SECRET)
    assert trusting(store).plan(2, 0).route == (FIRST, SECOND)
    store.objects[SHORTCUT] = b"{"
    assert trusting(store).load(2).equals(state(2))
    # Around a version that is not signed, and not over it.
    assert trusting(skipping(FIRST)).plan(2).route == (manifest_name(0), SHORTCUT)
    with pytest.raises(td.MissingError) as caught:
        trusting(skipping(FIRST, SHORTCUT)).load(2)
    assert caught.value.rule == "TD-RTE-006"


def test_an_unsigned_manifest_says_nothing_of_the_state_held() -> None:
    store = store_of()
    store.objects[FIRST] = line([little(), little(7)]).objects[FIRST]
    del store.objects[sig(FIRST)]
    held = state(1)
    held.sums()
    held.version, held.chain = 1, CHAIN
    trusting(store).prepare(held, 2).apply()
    assert held.equals(state(2))


def test_several_keys() -> None:
    store = store_of()
    store.objects[sig(SECOND)] = signature_of(store.objects[SECOND], OTHER_SECRET)
    assert trusting(store, PUBLIC, OTHER_PUBLIC).load().equals(state(2))
    with pytest.raises(td.UntrustedError):
        trusting(store, OTHER_PUBLIC)
    # Under the name of a key that is trusted as well.
    store.objects[sig(SECOND)] = signature_of(store.objects[SECOND], keyid=digest(bytes.fromhex(OTHER_PUBLIC)))
    with pytest.raises(td.UntrustedError):
        trusting(store, PUBLIC, OTHER_PUBLIC).load()


def test_without_keys_signature_objects_are_ignored() -> None:
    store = store_of()
    for name in [name for name in store.objects if name.endswith(".sig")]:
        store.objects[name] = b"garbage"
    store.objects["manifests/000000000009.json.sig"] = b"garbage"
    chain = td.open(store, threads=1)
    assert chain.versions() == [0, 1, 2] and chain.load().equals(state(2)) and chain.verify(deep=True).ok
    assert chain.allow_rollback
    assert not any(name.endswith(".sig") for name in store.reads)


def test_an_object_that_was_altered_on_its_way_is_read_again() -> None:
    class Far(MemoryStore):
        remote = True
        spoilt: set[str] = set()  # noqa: RUF012

        def open(self, name: str) -> Any:
            blob = super().open(name)
            if is_member(name) and name not in self.spoilt:
                self.spoilt.add(name)
                blob._data = blob._data[:-1] + b" "
            return blob

    chain = trusting(Far(dict(_line(3))))
    assert chain.manifest(2).version == 2 and Far.spoilt == {"chain.json", SECOND}


# -- no way back -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ask", [each for each in ASK if each not in ("manifest", "layout", "plan", "plan from")])
def test_an_older_version_is_refused(ask: str, tmp_path: Path) -> None:
    chain = trusting(store_of())
    chain.load(2)
    with pytest.raises(td.UntrustedError) as caught:
        ASK[ask](chain, 1, tmp_path / "out")
    assert (caught.value.object, caught.value.rule) == (FIRST, "TD-SIG-005")
    ASK[ask](chain, 2, tmp_path / "out")
    chain.allow_rollback = True
    ASK[ask](chain, 1, tmp_path / "out")


def test_looking_at_older_versions_is_no_way_back() -> None:
    chain = trusting(store_of())
    chain.load()
    assert chain.manifest(0).version == 0 and chain.plan(1).version == 1 and chain.verify(deep=True).ok
    assert len(chain.log()) == 3


def test_a_newest_version_that_is_older_than_before() -> None:
    store = store_of()
    chain = trusting(store)
    held = chain.load()
    for name in (SECOND, sig(SECOND)):
        del store.objects[name]
    for each in (chain, trusting(store)):  # by what the chain remembers, and by what the state does
        with pytest.raises(td.UntrustedError) as caught:
            each.prepare(held)
        assert caught.value.rule == "TD-SIG-005"
    assert held.equals(state(2))
    trusting(store, allow_rollback=True).prepare(held).apply()
    assert held.equals(state(1))


def test_only_what_is_applied_is_held() -> None:
    chain = trusting(store_of())
    empty = td.State.empty()
    update = chain.prepare(empty, 2)
    assert chain.load(1).equals(state(1))
    update.apply()
    with pytest.raises(td.UntrustedError):
        chain.load(1)
    update.undo()
    with pytest.raises(td.UntrustedError):
        chain.load(1)


def test_an_update_that_is_applied_late_does_not_lead_back() -> None:
    chain = trusting(store_of())
    late = chain.prepare(td.State.empty(), 1)
    chain.load(2)
    late.apply()
    with pytest.raises(td.UntrustedError):
        chain.load(1)


def test_a_pull_is_remembered_by_the_chain_as_well(tmp_path: Path) -> None:
    chain = trusting(store_of())
    chain.pull(tmp_path / "out")
    with pytest.raises(td.UntrustedError):
        chain.load(1)


def test_going_back_once_is_not_for_ever() -> None:
    chain = trusting(store_of(), allow_rollback=True)
    chain.load(2)
    chain.load(1)
    chain.allow_rollback = False
    assert chain.load(1).equals(state(1))  # what was gone back to is what is held
    with pytest.raises(td.UntrustedError):
        chain.load(0)


def anew(store: MemoryStore, model: dict[str, Any]) -> None:
    """Publish version 1 once more, signed, with another state."""
    builder = line([walk(1)[0], model])
    sign_all(builder.objects)
    store.objects |= builder.objects


@pytest.mark.parametrize("other", ["fingerprint", "layout"])
def test_a_version_that_is_another_than_it_was(other: str, tmp_path: Path) -> None:
    model = walk(2)[1]
    model = little(9) if other == "fingerprint" else model | {"a.weight": model["a.weight"]._replace(shape=(6, 4))}
    store = store_of(2)
    chain = trusting(store)
    held = chain.load(1)
    chain.pull(tmp_path / "out", 1)
    anew(store, model)
    for act in (
        lambda: chain.load(1),
        lambda: chain.prepare(held, 1),
        lambda: chain.pull(tmp_path / "out"),
        lambda: trusting(store).pull(tmp_path / "out"),  # another process
        lambda: trusting(store).prepare(held, 1),  # a reader that is new, and a state that remembers
        lambda: trusting(store).prepare(held.copy(), 1),
        lambda: trusting(store, allow_rollback=True).prepare(held, 1),
        lambda: trusting(store, allow_rollback=True).pull(tmp_path / "out", 1),
    ):
        with pytest.raises(td.UntrustedError) as caught:
            act()
        assert (caught.value.object, caught.value.rule) == (FIRST, "TD-SIG-006")
    assert trusting(store).load(1).equals(as_state(model))  # whoever has held nothing cannot know
    assert td.Checkout(tmp_path / "out").verify(threads=1) == (1, [])


def test_a_pulled_folder_remembers(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    trusting(store_of()).pull(folder, 2)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    for version, store in ((1, store_of()), (None, store_of(2))):
        with pytest.raises(td.UntrustedError) as caught:
            trusting(store).pull(folder, version)
        assert caught.value.rule == "TD-SIG-005"
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert td.open(store_of(), threads=1).pull(folder, 1).version == 1  # without keys nothing is promised
    assert trusting(store_of()).pull(folder, 2).version == 2
    assert trusting(store_of(), allow_rollback=True).pull(folder, 1).version == 1
    assert trusting(store_of()).pull(folder, 1).route == ()
    with pytest.raises(td.UntrustedError):
        trusting(store_of()).pull(folder, 0)


def test_the_age_of_the_newest_version() -> None:
    def aged(seconds: float, version: int = 2) -> MemoryStore:
        store = store_of()
        name = manifest_name(version)
        document = json.loads(store.objects[name])
        when = time.gmtime(time.time() - seconds)
        document["created"] = time.strftime("%Y-%m-%dT%H:%M:%S.5Z", when)
        store.objects[name] = json.dumps(document).encode()
        sign_all(store.objects)
        return store

    for ask in (lambda chain: chain.load(), lambda chain: chain.prepare(state(0)), lambda chain: chain.manifest()):
        ask(trusting(aged(100), max_age=200))
        ask(trusting(aged(-500), max_age=1))  # a clock that is ahead
        with pytest.raises(td.UntrustedError) as caught:
            ask(trusting(aged(300), max_age=200))
        assert (caught.value.object, caught.value.rule) == (SECOND, "TD-SIG-008")
    old = trusting(aged(300), max_age=200)
    assert old.load(2).equals(state(2)), "a version that was asked for by number is not withheld"
    assert [fault.rule for fault in old.verify().faults] == ["TD-SIG-008"]
    assert trusting(aged(100), max_age=200).verify().ok
    for created in ("0000-02-30T00:00:00Z", "2026-02-30T23:59:60.123456789Z"):  # no days of the calendar
        store = aged(0)
        store.objects[SECOND] = store.objects[SECOND].replace(
            json.loads(store.objects[SECOND])["created"].encode(), created.encode()
        )
        sign_all(store.objects)
        with pytest.raises(td.UntrustedError):
            trusting(store, max_age=1).load()
        trusting(store, max_age=1e12).load()


# -- verifiers ---------------------------------------------------------------------------------------------------------


def test_verify_tells_what_is_not_signed() -> None:
    store = skipping(manifest_name(0), SHORTCUT)
    store.objects[sig(FIRST)] = signature_of(store.objects[FIRST], OTHER_SECRET)
    store.objects[sig(SECOND)] = b"{"
    assert td.open(store, threads=1).verify(deep=True).ok
    found = trusting(store).verify()
    assert list(found.versions) == [0, 1, 2]
    assert {(fault.name, fault.object, fault.rule) for fault in found.faults} == {
        ("untrusted", manifest_name(0), "TD-SIG-002"),
        ("untrusted", FIRST, "TD-SIG-003"),
        ("malformed", sig(SECOND), "TD-JSN-003"),
        ("untrusted", SHORTCUT, "TD-SIG-004"),
    }


# -- writers -----------------------------------------------------------------------------------------------------------


@dataclass
class Died(Exception):
    name: str


class Recording(MemoryStore):
    """A store that tells in what order objects appear, and that dies before one does."""

    def __init__(self) -> None:
        super().__init__({})
        self.written: list[str] = []
        self.dies_at: Callable[[str], bool] = lambda name: False

    def _write(self, name: str) -> None:
        if self.dies_at(name):
            raise Died(name)
        self.written.append(name)

    def put(self, name: str, parts: Iterable[bytes | memoryview]) -> None:
        self._write(name)
        super().put(name, parts)

    def create(self, name: str, data: bytes) -> bool:
        self._write(name)
        return super().create(name, data)


def unsigned(store: MemoryStore) -> list[str]:
    """Members without a signature of the first key."""

    def is_signed(name: str) -> bool:
        try:
            verify(store.objects[name], store.objects.get(sig(name), b""), KEYS, object=name)
        except td.TensorDeltaError:
            return False
        return True

    return [name for name in store.objects if is_member(name) and not is_signed(name)]


def publish(chain: td.Chain, *versions: int, **options: Any) -> None:
    for version in versions:
        chain.publish(state(version), version=version, **options)


def test_a_writer_signs_what_it_makes() -> None:
    store = Recording()
    chain = td.open(store, create=True, threads=1, key=SECRET)
    publish(chain, 0, 1)
    made = chain.shortcut(None, 1)
    assert unsigned(store) == [] and len([name for name in store.objects if name.endswith(".sig")]) == 4
    assert made.base is None
    for name in [name for name in store.written if name.endswith(".sig")]:
        assert store.written.index(name) == store.written.index(name[:-4]) + 1, "the signature follows its object"
    assert store.written.index(sig(FIRST)) < len(store.written) - 1 - store.written[::-1].index("latest.json")
    again = trusting(store)
    assert again.verify(deep=True).ok and again.load().equals(state(1))


def test_a_key_for_one_version() -> None:
    store = Recording()
    chain = td.open(store, create=True, threads=1)
    for version in (0, 1):
        chain.publish(state(version), key=SECRET)
    assert unsigned(store) == []
    assert trusting(store).load().equals(state(1))
    chain.publish(state(2))
    assert unsigned(store) == [SECOND]
    assert trusting(store).newest == 1


def test_a_writer_does_not_build_on_what_nobody_signed() -> None:
    def tries(store: MemoryStore) -> None:
        before = dict(store.objects)
        with pytest.raises(td.UntrustedError) as caught:
            td.open(store, threads=1, key=SECRET).publish(state(2))
        assert caught.value.rule in ("TD-SIG-002", "TD-SIG-003")
        with pytest.raises(td.UntrustedError):
            td.open(store, threads=1).publish(state(2), key=SECRET)
        assert store.objects == before

    plain = MemoryStore(dict(line(walk(2)).objects))
    tries(plain)
    assert td.open(plain, threads=1).sign(SECRET) == ["chain.json", manifest_name(0), FIRST]
    td.open(plain, threads=1, key=SECRET).publish(state(2))
    assert unsigned(plain) == []

    newest = store_of(2)
    newest.objects[sig(FIRST)] = signature_of(newest.objects[FIRST], OTHER_SECRET)
    tries(newest)
    del newest.objects[sig(FIRST)]
    tries(newest)
    # A full version builds on nothing, and does not take the number of what is there.
    assert td.open(newest, threads=1, key=SECRET).publish(state(2), full=True).version == 2
    assert trusting(newest).load().equals(state(2))
    assert sig(FIRST) not in newest.objects


def test_trusted_keys_without_a_key_publish_nothing() -> None:
    chain = trusting(store_of())
    with pytest.raises(ValueError, match="key to sign with"):
        chain.publish(state(2))
    with pytest.raises(ValueError, match="key to sign with"):
        chain.shortcut(0, 2)


def test_one_key_gives_way_to_another() -> None:
    store = store_of(2)
    with pytest.raises(td.UntrustedError):
        td.open(store, threads=1, key=OTHER_SECRET)
    td.open(store, threads=1, key=OTHER_SECRET, trusted_keys=[PUBLIC]).publish(state(2))
    assert trusting(store, PUBLIC, OTHER_PUBLIC).load().equals(state(2))
    assert trusting(store).newest == 2
    with pytest.raises(td.UntrustedError):
        trusting(store).load()
    signed = trusting(store).sign(OTHER_SECRET)
    assert signed == ["chain.json", manifest_name(0), FIRST]  # version 2 has its signature
    assert trusting(store, OTHER_PUBLIC).verify(deep=True).ok
    assert trusting(store, PUBLIC, OTHER_PUBLIC).sign(OTHER_SECRET) == []


def test_signing_with_trusted_keys_vouches_for_nothing_new() -> None:
    store = store_of()
    store.objects[sig(FIRST)] = signature_of(store.objects[FIRST], "11" * 32)
    before = dict(store.objects)
    with pytest.raises(td.UntrustedError) as caught:
        trusting(store).sign(OTHER_SECRET)
    assert caught.value.object == FIRST and store.objects == before
    assert trusting(store).sign(OTHER_SECRET, [0, 2]) == ["chain.json", manifest_name(0), SECOND]


def test_signing_what_is_there() -> None:
    store = MemoryStore(dict(skipping().objects))
    for name in [name for name in store.objects if name.endswith(".sig")]:
        del store.objects[name]
    chain = td.open(store, threads=1)
    assert chain.sign(SECRET, [1]) == ["chain.json", FIRST]
    assert chain.sign(SECRET, [2, 2]) == [SECOND, SHORTCUT]
    assert chain.sign(SECRET) == [manifest_name(0)]
    assert chain.sign(SECRET) == [] and unsigned(store) == []
    with pytest.raises(td.MissingError):
        chain.sign(SECRET, [7])


@pytest.mark.parametrize(
    ("name", "change", "error"),
    [
        (SECOND, lambda data: b"{", "malformed"),
        (SECOND, lambda data: data.replace(CHAIN.encode(), ANOTHER), "conflict"),
        (
            SHORTCUT,
            lambda data: data.replace(b'"fingerprint":"', b'"fingerprint":"0000000000000000","x":"', 1),
            "conflict",
        ),
        ("chain.json", lambda data: data.replace(CHAIN.encode(), ANOTHER), "conflict"),
    ],
)
def test_what_no_reader_accepts_is_not_signed(name: str, change: Callable[[bytes], bytes], error: str) -> None:
    store = skipping()
    chain = td.open(store, threads=1)
    for each in [each for each in store.objects if each.endswith(".sig")]:
        del store.objects[each]
    store.objects[name] = change(store.objects[name])
    with pytest.raises(td.ERRORS[error]):
        chain.sign(SECRET)
    assert not any(each.endswith(".sig") for each in store.objects)


@pytest.mark.parametrize("again", ["same version", "next version", "shortcut"])
def test_a_writer_that_died_before_it_signed(again: str) -> None:
    store = Recording()
    publish(td.open(store, create=True, threads=1, key=SECRET), 0)
    store.dies_at = lambda name: name == sig(FIRST)
    with pytest.raises(Died):
        publish(td.open(store, threads=1, key=SECRET), 1)
    store.dies_at = lambda name: False
    assert unsigned(store) == [FIRST] and trusting(store).newest == 0
    chain = td.open(store, threads=1, key=SECRET)
    if again == "shortcut":
        publish(chain, 2)
        store.dies_at = lambda name: name.startswith("shortcuts/") and name.endswith(".sig")
        with pytest.raises(Died):
            chain.shortcut(0, 2)
        store.dies_at = lambda name: False
        assert unsigned(store) == [SHORTCUT]
        assert td.open(store, threads=1, key=SECRET).shortcut(0, 2).version == 2
    else:
        publish(chain, 1 if again == "same version" else 2)
    assert unsigned(store) == []
    assert trusting(store).verify(deep=True).ok


def test_a_writer_that_died_before_it_signed_the_chain() -> None:
    store = Recording()
    store.dies_at = lambda name: name.endswith(".sig")
    with pytest.raises(Died):
        td.open(store, create=True, threads=1, key=SECRET)
    store.dies_at = lambda name: False
    with pytest.raises(td.UntrustedError):  # another key cannot vouch for it
        td.open(store, create=True, threads=1, key=OTHER_SECRET)
    publish(td.open(store, create=True, threads=1, key=SECRET), 0)
    assert unsigned(store) == []


def forget_everything(cache: Path) -> None:
    """As on another machine."""
    for path in cache.iterdir():
        shutil.rmtree(path)


def test_a_version_found_unsigned_is_signed_if_it_is_this_one(_own_cache: Path) -> None:
    """What a writer that died on another machine left behind."""
    store = Recording()
    publish(td.open(store, create=True, threads=1, key=SECRET), 0)
    publish(td.open(store, threads=1, key=SECRET), 1, annotations={"step": "7"})
    for full in (False, True):
        del store.objects[sig(FIRST)]
        forget_everything(_own_cache)
        chain = td.open(store, threads=1, key=SECRET)
        with pytest.raises(td.UntrustedError):
            chain.publish(state(2))
        with pytest.raises(td.ConflictError):
            chain.publish(state(2), version=1, annotations={"step": "7"}, full=full)
        with pytest.raises(td.UntrustedError) as caught:
            chain.publish(state(1), version=1, annotations={"step": "8"}, full=full)
        assert "annotations" in caught.value.reason
        assert unsigned(store) == [FIRST]
        chain.publish(state(1), version=1, annotations={"step": "7"}, full=full)
        assert unsigned(store) == []
        # And now the same for a full version.
        if not full:
            for name in (FIRST, sig(FIRST)):
                del store.objects[name]
            publish(td.open(store, threads=1, key=SECRET), 1, full=True, annotations={"step": "7"})


def test_what_a_writer_has_read_keeps_it_from_nothing(_own_cache: Path) -> None:
    """Its snapshot goes back to the version before the one that it finds unsigned."""
    store = Recording()
    publish(td.open(store, create=True, threads=1, key=SECRET), 0, 1)
    forget_everything(_own_cache)
    chain = td.open(store, threads=1, key=SECRET)
    assert chain.load().equals(state(1))
    del store.objects[sig(FIRST)]
    publish(chain, 1)
    assert unsigned(store) == []


def test_whoever_creates_what_is_there_signs_it_if_it_is_his_own() -> None:
    """As a coordinator of many writers does, which knows its own manifest by its contents."""
    store = Recording()
    first, again = (SigningStore(store, secret_key(SECRET)) for _ in range(2))
    store.dies_at = lambda name: name.endswith(".sig")
    with pytest.raises(Died):
        first.create(FIRST, b"mine")
    store.dies_at = lambda name: False
    assert not again.create(FIRST, b"mine, at another time") and unsigned(store) == []
    store.objects[SECOND] = b"another's"
    assert not again.create(SECOND, b"mine") and sig(SECOND) not in store.objects
    assert again.create("files/x", b"mine") and sig("files/x") not in store.objects


@pytest.mark.parametrize("forged", [False, True])
def test_equal_fingerprints_are_not_signed_for(forged: bool) -> None:
    """Whoever can write to the store lays a version there, of which only the words tell that it is another."""
    before, after, other = twins(2)
    builder = Builder()
    builder.full(0, before)
    sign_all(builder.objects)
    move(builder, 1, after, 0)
    mine = builder.objects[FIRST]
    move(builder, 1, other, 0)
    assert json.loads(mine)["fingerprint"] == json.loads(builder.objects[FIRST])["fingerprint"]
    if not forged:
        builder.objects[FIRST] = mine
    store = MemoryStore(builder.objects)
    chain = td.open(store, threads=1, key=SECRET)
    if forged:
        with pytest.raises(td.ConflictError) as caught:
            chain.publish(as_state(after), version=1)
        assert caught.value.object == FIRST and sig(FIRST) not in store.objects
    else:
        chain.publish(as_state(after), version=1)
        assert unsigned(store) == []


def test_a_plain_version_is_signed(tmp_path: Path) -> None:
    save_file({"w": np.arange(6, dtype=np.float32)}, tmp_path / "model.safetensors")
    chain = td.open(tmp_path / "chain", create=True, threads=1, key=SECRET)
    for _ in range(2):  # the second time it is there
        chain.publish(tmp_path / "model.safetensors", plain=True, version=0)
    assert trusting(tmp_path / "chain").verify(deep=True).ok
    (tmp_path / "chain/manifests/000000000000.json.sig").unlink()
    chain.publish(tmp_path / "model.safetensors", plain=True, version=0)
    assert trusting(tmp_path / "chain").load()["w"].tolist() == [0, 1, 2, 3, 4, 5]


def test_a_collector_with_keys_counts_what_is_signed(tmp_path: Path) -> None:
    """A full shortcut that nobody signed leads no reader with keys anywhere."""
    folder = tmp_path / "chain"
    publish(td.open(folder, create=True, threads=1, key=SECRET), 0, 1, 2)
    td.open(folder, threads=1).shortcut(None, 2)
    kept = trusting(folder).collect(1, grace=0)
    assert (list(kept.kept), list(kept.supporting), list(kept.dropped)) == ([2], [0, 1], [])
    assert trusting(folder).load().equals(state(2))
    with pytest.raises(td.UntrustedError):  # what is there is not the writer's own for all it knows
        td.open(folder, threads=1, key=SECRET).shortcut(None, 2)
    td.open(folder, threads=1).sign(SECRET, [2])
    assert list(trusting(folder).collect(1, grace=0).dropped) == [0, 1]
    assert trusting(folder).load().equals(state(2))
    assert [path.name for path in (folder / "manifests").iterdir() if path.name < "000000000002"] == []


# -- the extra ---------------------------------------------------------------------------------------------------------


def test_without_the_package_for_signatures(tmp_path: Path) -> None:
    td.open(tmp_path / "chain", create=True, threads=1, key=SECRET).publish({"w": np.zeros(3, np.float32)})
    script = """
import sys
sys.modules["cryptography"] = None
import tensordelta as td
from tensordelta.cli import main
assert td.open("chain").load()["w"].tolist() == [0, 0, 0]
for options in ({"trusted_keys": [%r]}, {"key": %r}):
    try:
        td.open("chain", **options)
    except ImportError as error:
        print(error)
main(["log", "chain", "--trusted-key", %r])
"""
    package = str(Path(td.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", script % (PUBLIC, SECRET, PUBLIC)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": package},
        capture_output=True,
        text=True,
        timeout=60,
    )
    says = "signatures need the package cryptography: pip install 'tensordelta[sign]'"
    assert done.stdout == f"{says}\n{says}\n" and done.stderr == f"Error: {says}.\n" and done.returncode == 1


def test_cryptography_is_imported_when_keys_are_used_only() -> None:
    script = "import sys, tensordelta.cli, tensordelta.write.keys; print('cryptography' in sys.modules)"
    package = str(Path(td.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | {"PYTHONPATH": package},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


# -- the command line --------------------------------------------------------------------------------------------------


def run(*arguments: object, code: int = 0) -> str:
    done = CliRunner().invoke(main, [str(each) for each in arguments])
    assert done.exit_code == code, done.output
    assert "Traceback" not in done.output
    return done.output


def facts(*arguments: object) -> Any:
    return json.loads(run(*arguments, "--json"))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two keys, and three steps."""
    monkeypatch.chdir(tmp_path)
    for name in ("key", "other"):
        write_key_pair(tmp_path / name)
    for step in range(3):
        words = np.arange(40, dtype=np.float32)
        words[:step] += 1
        save_file({"w": words}, f"{step}.safetensors")
    return tmp_path


def test_keygen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = facts("keygen", "key")
    assert (made["secret"], made["public"]) == ("key", "key.pub")
    assert public_key("key.pub") == public_key(made["key"]) and public_key("key.pub").id == made["keyid"]
    shown = run("keygen", "second")
    assert public_key("second.pub").raw.hex() in shown and secret_key("second").raw.hex() not in shown
    assert "File exists" in run("keygen", "key", code=1)


def test_a_signed_chain_by_commands(place: Path) -> None:
    for step in range(3):
        run("publish", "chain", f"{step}.safetensors", "--key", "key")
    trust = ("--trusted-key", "key.pub")
    assert [row["version"] for row in facts("log", "chain", *trust)] == [0, 1, 2]
    assert facts("show", "chain", *trust, "--max-age", "3600")["version"] == 2
    assert facts("verify", "chain", "--deep", *trust)["ok"]
    assert facts("plan", "chain", "--from", "1", *trust)["base"] == 1
    assert facts("pull", "chain", "out", "--trusted-key", "other.pub", *trust)["version"] == 2
    assert load_file("out/model.safetensors")["w"].tolist()[:3] == [1, 2, 2]
    older = run("pull", "chain", "out", "--to", "1", *trust, code=1)
    assert "untrusted" in older and "TD-SIG-005" in older and "--allow-rollback" in older
    assert facts("pull", "chain", "out", "--to", "1", "--allow-rollback", *trust)["version"] == 1

    Path("chain/manifests/000000000002.json.sig").unlink()
    assert facts("pull", "chain", "out", *trust)["version"] == 1
    hexadecimal = public_key("key.pub").raw.hex()
    assert "TD-SIG-002" in run("show", "chain", "2", "--trusted-key", hexadecimal, code=1)
    assert "TD-SIG-002" in run("verify", "chain", *trust, code=1)
    for command in ("log", "verify", "show"):
        assert "chain.json" in run(command, "chain", "--trusted-key", "other.pub", code=1)
    assert facts("verify", "chain")["ok"]
    signed = facts("sign", "chain", "--key", "key")
    assert signed == {"keyid": public_key("key.pub").id, "signed": ["manifests/000000000002.json"]}
    assert "nothing to do" in run("sign", "chain", "--key", "key")
    assert facts("pull", "chain", "out", *trust)["version"] == 2


def test_the_age_by_commands(place: Path) -> None:
    run("publish", "chain", "0.safetensors", "--key", "key")
    time.sleep(0.01)
    for command in (["log", "chain"], ["show", "chain"], ["pull", "chain", "out"], ["verify", "chain"]):
        assert "TD-SIG-008" in run(*command, "--trusted-key", "key.pub", "--max-age", "0", code=1)
        run(*command, "--trusted-key", "key.pub", "--max-age", "1000")


def test_signing_by_commands(place: Path) -> None:
    for step in range(3):
        run("publish", "chain", f"{step}.safetensors")
    refused = run("publish", "chain", "0.safetensors", "--key", "key", code=1)
    assert "untrusted" in refused and "tensordelta sign" in refused.replace("\n", " ").replace("  ", " ")
    assert facts("sign", "chain", "--key", "key", "--version", "0", "--version", "1")["signed"] == [
        "chain.json",
        "manifests/000000000000.json",
        "manifests/000000000001.json",
    ]
    assert "signed 1 object" in run("sign", "chain", "--key", "key")
    run("shortcut", "chain", "full", "2", "--key", "key")
    assert Path("chain/shortcuts/000000000002-full.json.sig").exists()
    assert len(facts("sign", "chain", "--key", "other", "--trusted-key", "key.pub")["signed"]) == 5
    run("publish", "chain", "0.safetensors", "--key", "key", "--trusted-key", "other.pub")
    assert facts(
        "gc", "chain", "--keep-last", "1", "--grace", "0", "--trusted-key", "key.pub", "--trusted-key", "other.pub"
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["publish", "chain", "0.safetensors", "--key", "nowhere"], "nowhere"),
        (["publish", "chain", "0.safetensors", "--key", "key.pub"], "public key"),
        (["publish", "chain", "0.safetensors", "--key", SECRET], "No such file"),
        (["publish", "chain", "0.safetensors", "--trusted-key", "key.pub"], "--key"),
        (["log", "chain", "--trusted-key", "key"], "secret key"),
        (["log", "chain", "--trusted-key", "0.safetensors"], "hex digits"),
        (["log", "chain", "--max-age", "5"], "trusted keys"),
        (["pull", "chain", "out", "--allow-rollback"], "trusted keys"),
        (["sign", "chain"], "--key"),
    ],
    ids=lambda each: " ".join(each[-2:]) if isinstance(each, list) else None,
)
def test_wrong_usage(arguments: list[str], says: str, place: Path) -> None:
    before = sorted(place.iterdir())
    assert says in run(*arguments, code=2)
    assert sorted(place.iterdir()) == before
