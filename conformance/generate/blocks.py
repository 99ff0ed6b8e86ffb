"""Compressed blocks of Zstandard frames, as a compressor once made them.

What a compressor makes depends on its version, so the bytes stand here. Between them they have Huffman literals and
tables for sequences of every kind that RFC 8878 knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from generate.frames import COMPRESSED, Block


def _numbers(seed: int) -> Iterator[int]:
    """Numbers that look random."""
    x = seed
    while True:
        x = (x * 6364136223846793005 + 1442695040888963407) & (1 << 64) - 1
        yield x >> 33


def skewed(seed: int, count: int, values: int) -> bytes:
    """Bytes below a bound, of which small ones are the most frequent."""
    numbers = _numbers(seed)
    return bytes(min(next(numbers) % values, next(numbers) % values) * min(next(numbers) % 3, 1) for _ in range(count))


def phrases(seed: int, count: int, words: int) -> bytes:
    """Words in any order."""
    known = (b"alpha ", b"beta ", b"gamma ", b"delta ", b"eps ", b"zeta ")
    numbers, text = _numbers(seed), b""
    while len(text) < count:
        text += known[next(numbers) % words]
    return text[:count]


class Compressed(NamedTuple):
    """A content, and blocks that make it.

    Attributes:
        slug, title: what the blocks have that others lack.
        digits: the blocks in hexadecimal digits.
    """

    slug: str
    title: str
    content: bytes
    digits: tuple[str, ...]

    def blocks(self) -> list[Block]:
        """The blocks, for `frame`."""
        return [(COMPRESSED, data, len(data)) for data in map(bytes.fromhex, self.digits)]


ALL = [
    Compressed(
        "huffman-in-four-streams",
        "literals in four Huffman streams, and no sequences",
        skewed(10, 300, 12),
        (
            "c6921b8963433232211b0016001b00e3e5f0a1e424667189e0e77052344f98c690e513b115460040332427d2b1b29933c8b5"
            "df737ecdf68e02ec7eb2d745a5cf23b97c73496b5f0cc0408301223cafe6834c09da2988647552440c615926c8df6f855c83"
            "679ecb866bcdcc4ffbbc19282e00",
        ),
    ),
    Compressed(
        "treeless",
        "literals in four Huffman streams, and a second block with the tree of the first",
        skewed(6, 600, 12),
        (
            "c6d21b8a754444333210190019001800236b1102eba0d643084b544ddcc26faff89f14f5307e1630676f0391b1940ce2f2a9"
            "a842f34583d776f80e39793162aaa420d348b306676ca2bfd027414a3d38166767b983e6b1e91b99e2acbc619677a21cf0e6"
            "eace53e7b01c48ca491fda90751800",
            "c7d21b1a001d001a0087c3809428cc6a28e70391607034b5888cfc6b9085660f64fd04bf2ee982664a3a11425104a2e4eb58"
            "1290b6ca8a0434932a3524618c0521ec768a2a1af1340d2179fc16ec6d4a238be854b7c508e796030b4a4db7702afabd4e7b"
            "d666ad5100799cf177c7dc40d71900",
        ),
    ),
    Compressed(
        "rle-of-match-lengths",
        "one code for all match lengths",
        skewed(39, 300, 12),
        (
            "46d01a8963342332211800180019001be931c602b2ce51d200cd94a74215996de7270d6576580313f3aa6c6eb0c449db8907"
            "3c6136df9cc5449e474d15920262b1605261d248555639bb2233c20b9919f24a840e7d1610c37f9d240144c49b14410e48de"
            "e235854db591b91c9d0d080402b8fa535cc483332b8e7b1019d4f27ac103",
        ),
    ),
    Compressed(
        "repeated-match-lengths",
        "a table for match lengths, and a second block with the table of the first",
        skewed(7, 300, 12),
        (
            "32070c88434213211092ba438b7036d1078211d18a5a86a55b9fad7112690ab70035282b298c7db942084690cea3f2ed8669"
            "ca080810c83d0cc68ad0c4d450e938afaf127bf2493004",
            "42870c8944232211214f77c77937650c25a18c8e70da230fd625ca2e012d71d64279607f820249373aee0205141d2ac6822c"
            "13c935080c4380775512c0c6c8538cd0dac4e191a21a03",
        ),
    ),
    Compressed(
        "rle-of-offsets",
        "one code for all offsets",
        skewed(28, 300, 12),
        (
            "a6111b8964333322211900170018003369f87123061c929f794344e0de129f0b743698b8af4a96050bc73a3507b8094bf2fb"
            "5947592352ac7eb8f892a6d412a3d8c5e86bfca509292074d8a70e08577ba0221b3d895708e1375fc2adcb2306d1d5526560"
            "8098c552444439739948080310004347d990e101",
        ),
    ),
    Compressed(
        "rle-of-literal-lengths",
        "literals in one Huffman stream with compressed weights, and a second block of matches only",
        phrases(1, 300, 6),
        (
            "f2c1060ce06d63b7e14d09d2120cac2cf4383ccf5ee3738c5c233dea2a4b0d20101a68fa487250f258026a0360c0500f7fa3"
            "312037a02450f0300f5ae4b204",
            "000d400029f2329b55f90b798fc367a8d54706c683f861586c56825c7706",
        ),
    ),
    Compressed(
        "treeless-in-one-stream",
        "literals in one Huffman stream, and a second block with the tree of the first",
        phrases(11, 300, 6),
        (
            "62c2070ce06d63b7e14d09d2120cac2c67077095851e6364a8c7c8353e6b3cf4ec010c007514400633290486cad0553e5030"
            "4eb203267a2a3290ca04f675c56402",
            "538102670738fb18f9ec3dfb580d2010cef003da0200db58080430604ab94d383216988d899363669084bd0f40176001",
        ),
    ),
    Compressed(
        "repeated-tables",
        "tables for literal lengths and offsets, and a second block with those of the first",
        phrases(35, 300, 6),
        (
            "e867616d6d61207a6574612064656c746120616c706861206570736265620ea090b7bee51054087b8836a82d8f6b2bf40d2f"
            "164661408507ddc3ad3c9c1e2609",
            "187a65620cf0e5a38cebc53786712ac6c0b4054fbce258298b9405e33e",
        ),
    ),
    Compressed(
        "many-sequences",
        "raw literals and sixty sequences",
        phrases(9, 600, 6),
        (
            "34027a6574612064656c74612067616d6d627a6562616c706861206570737a627a7a6262613c204002821c333bce03f3014c"
            "13824bc005e0b740f5060b05d890cb00d40d5932205e80001c366f905b015943508e05584784e4f4859587688303e9071080"
            "3d70c0418103433c78053804a0158690033a20b64139c0e2001187ed01f381f80060e6e00d18d86e508c87eb68a2bb4f6244"
            "6600f73336c10520cd0d5cf03628ec9b15ea031b82d701",
        ),
    ),
    Compressed(
        "compressed-weights",
        "literals of forty values in four Huffman streams, whose weights are compressed",
        skewed(2, 600, 40),
        (
            "26a24f0f102008bd1ad0f4b3d02c9256587d0a4a004c0048008d70617b22901c52de2bf91fe6f8e5493dfadbd45dbab6425c"
            "1250c1c65832b424acf634fe0548738ee8c39b13e6f093afab60747e7accac8d1ca2b97326353f833551b3d1520c31ba384f"
            "47d21c51e489e3dffb1f84f4da8c337e10b196f9c5854ba0786acee788eea871a4ed8eede88abfc13534a31cba7b3c6c7c00"
            "dca34b66fada568f5a831576fd06caf4c7a5a30ce3324a241f023a60eb66a2dae8d7f8b015eb810d1f85b9c83f007e047eda"
            "28cea07ac8c672a31b6f7e64de7dddce353fe0be73efa4a7d4cc1e91fadd3aa6e967feb5877ebbfdf4a58cd683a82515596d"
            "285edb460b63d17fcf0816a07842b35fcac993844c2559b97689dc284c1f917d2de696bb0bf0addab9da0ae571c4ae79d0bf"
            "80093f95437578f06ed3d1a580fe426c111f123e180d00c22bbe8c20e2fc04d5bd882f3141f40894a6356a5d15b15b63fb9a"
            "996d4c8c61655bcb18",
        ),
    ),
]
