"""The generator's signatures, by the test vectors of RFC 8032, section 7.1, and the example of SPEC.md, section 14."""

from __future__ import annotations

import base64

import pytest

from generate import ed25519

VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe246"
        "55141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aee"
        "b00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28d"
        "c027beceea1ec40a",
    ),
]
CHAIN = b'{"tensordelta":"1.0-rc.1","chain":"5f0c8a52-3a1e-4b7d-9c64-0d2f6b1e7a90","created":"2026-11-20T12:00:00Z"}'
EXAMPLE = "UsInZ5v3ULS7CZU1HsFUiMOvgoR9BYD2xWMZ/KWoYM9O4lPlX8LEH6GHnwPfeSxJAqRN5ievtfYZi10SCB7eBg=="


@pytest.mark.parametrize(("secret", "public", "message", "signature"), VECTORS)
def test_the_vectors_of_the_rfc(secret: str, public: str, message: str, signature: str) -> None:
    key, data = bytes.fromhex(secret), bytes.fromhex(message)
    assert ed25519.public_key(key).hex() == public
    assert ed25519.sign(key, data).hex() == signature
    assert ed25519.verify(bytes.fromhex(public), data, bytes.fromhex(signature))


def test_the_example_of_the_specification() -> None:
    signature = ed25519.sign(bytes.fromhex(VECTORS[0][0]), b"tensordelta:chain.json\n" + CHAIN)
    assert base64.b64encode(signature).decode() == EXAMPLE


@pytest.mark.parametrize("at", [0, 31, 32, 63])
def test_a_changed_signature_does_not_verify(at: int) -> None:
    _, public, message, signature = VECTORS[2]
    data = bytearray.fromhex(signature)
    data[at] ^= 1
    assert not ed25519.verify(bytes.fromhex(public), bytes.fromhex(message), bytes(data))


def test_a_second_half_beyond_the_order_does_not_verify() -> None:
    _, public, message, signature = VECTORS[2]
    data = bytes.fromhex(signature)
    half = int.from_bytes(data[32:], "little") + ed25519.ORDER
    assert not ed25519.verify(bytes.fromhex(public), bytes.fromhex(message), data[:32] + half.to_bytes(32, "little"))


def test_another_message_or_key_does_not_verify() -> None:
    _, public, message, signature = VECTORS[2]
    assert not ed25519.verify(bytes.fromhex(public), bytes.fromhex(message) + b"\0", bytes.fromhex(signature))
    assert not ed25519.verify(bytes.fromhex(VECTORS[1][1]), bytes.fromhex(message), bytes.fromhex(signature))
