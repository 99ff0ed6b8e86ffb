"""Signature objects and keys (SPEC.md section 14)."""

from __future__ import annotations

import base64
import json
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from cryptography.hazmat.primitives.serialization import PublicFormat as Public
from signed_chains import (
    DIGEST,
    KEY,
    KEYID,
    OTHER_PUBLIC,
    PUBLIC,
    SECRET,
    SIG,
    WORKED,
    signature_of,
    store_of,
    trusting,
)

import tensordelta as td
from tensordelta.format.keys import PublicKey, SecretKey
from tensordelta.format.signature import Message
from tensordelta.write.keys import public_key, secret_key, trusted, write_key_pair

# -- signature objects -------------------------------------------------------------------------------------------------


CHAIN = "chain.json"


def is_signed(data: bytes, signature: bytes, name: str = CHAIN, key: PublicKey = KEY) -> bool:
    """Whether an object is signed by a key, of which the signature object that is looked for is this one."""
    return Message(name, data).is_signed_by(key, lambda _: signature)


def test_the_example_of_section_14() -> None:
    name, made = Message(CHAIN, WORKED).sign(secret_key(SECRET))
    assert name == f"signatures/{DIGEST}-{KEYID}.json"
    assert made == f'{{"tensordelta":"1.0-rc.1","sig":"{SIG}"}}'.encode()
    spec = (Path(__file__).parents[2] / "SPEC.md").read_text()
    example = spec[spec.index("<!-- example: signature valid -->") :].split("```json\n")[1].split("```")[0].encode()
    for each in (made, example, b" \n" + made + b"\t", made.replace(b'"sig"', b'"more": [1e9, null], "sig"')):
        assert is_signed(WORKED, each)


@pytest.mark.parametrize("spoilt", [WORKED + b" ", WORKED[:-1], b"", WORKED.replace(b"12:00:00Z", b"12:00:01Z")])
def test_a_signature_is_over_the_bytes_as_they_are(spoilt: bytes) -> None:
    assert not is_signed(spoilt, signature_of(CHAIN, WORKED))


def test_a_signature_is_of_one_name() -> None:
    for name in ("manifests/000000000001.json", "chain.jsom", ""):
        assert not is_signed(WORKED, signature_of(CHAIN, WORKED), name)


@pytest.mark.parametrize("at", range(0, 64, 7))
def test_every_byte_of_a_signature_counts(at: int) -> None:
    raw = bytearray(base64.b64decode(SIG))
    raw[at] ^= 1
    assert not is_signed(WORKED, signature_of(CHAIN, WORKED, sig=base64.b64encode(raw).decode()))


@pytest.mark.parametrize(
    "members",
    [
        {"sig": base64.b64decode(SIG).hex()},
        {"sig": SIG.rstrip("=")},
        {"sig": SIG + "\n"},
        {"sig": " " + SIG},
        {"sig": SIG.replace("+", "-").replace("/", "_")},
        {"sig": base64.b64encode(bytes(63)).decode()},
        {"sig": base64.b64encode(bytes(65)).decode()},
        {"sig": SIG[:-3] + "B=="},  # bits beyond the 64 bytes
        {"sig": ""},
        {"sig": None},
        {"tensordelta": "2.0"},
        {"tensordelta": "1"},
        {"padding": " " * 65536},
    ],
)
def test_signature_objects_that_count_for_nothing(members: dict[str, Any]) -> None:
    assert not is_signed(WORKED, signature_of(CHAIN, WORKED, **members))


def test_a_signature_object_needs_its_fields() -> None:
    for field in ("tensordelta", "sig"):
        document = json.loads(signature_of(CHAIN, WORKED))
        del document[field]
        assert not is_signed(WORKED, json.dumps(document).encode())


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
        (tmp_path / name).chmod(0o600)
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
    assert [key.raw.hex() for key in trusted([PUBLIC, bytes.fromhex(OTHER_PUBLIC)])] == [PUBLIC, OTHER_PUBLIC]
    with pytest.raises(ValueError, match="no trusted key"):
        td.open(store_of(), trusted_keys=[])  # by mistake, perhaps: it must not read without signatures
    with pytest.raises(ValueError, match="a list of keys"):
        td.open(store_of(), trusted_keys=PUBLIC)
    for options in ({"allow_rollback": True}, {"max_age": 60.0}, {"threshold": 2}):
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
