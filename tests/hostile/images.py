"""Hostile image files, built from their parts."""

from __future__ import annotations

import io
import zlib
from collections.abc import Mapping, Sequence
from struct import pack

from PIL import Image

__all__ = [
    "apng", "bmp_rle", "deflated_zeros", "gif", "jpeg_with_scans", "jpeg_with_segments", "looping_mpo", "png",
    "png_chunk", "tiff", "tiff_chain", "webp",
]  # fmt: skip


def deflated_zeros(count: int) -> bytes:
    """A zlib stream of zeros, made from one block that is repeated."""
    block = 1 << 20
    packer = zlib.compressobj(9)
    one = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    last = packer.compress(bytes(count % block)) + packer.flush()
    blocks = count // block
    body = (one + again * (blocks - 1) if blocks else zlib.compress(b"")[:2]) + last[:-4]
    return body + pack(">HH", count % 65521, 1)


def _bits(text: str) -> bytes:
    """Bits as the data of a JPEG scan: padded with ones, with a zero after each 0xff."""
    padded = text + "1" * (-len(text) % 8)
    return int(padded, 2).to_bytes(len(padded) // 8, "big").replace(b"\xff", b"\xff\0")


def jpeg_with_scans(scans: int, side: int = 7071) -> bytes:
    """A grey progressive JPEG whose scans each refine all coefficients by nothing."""
    blocks = (-(-side // 8)) ** 2

    def segment(marker: int, body: bytes) -> bytes:
        return pack(">BBH", 0xFF, marker, len(body) + 2) + body

    one_code = bytes([1, *[0] * 15])  # the code 0
    head = (
        b"\xff\xd8" + segment(0xDB, b"\0" + b"\1" * 64) + segment(0xC2, pack(">BHHB", 8, side, side, 1) + b"\1\x11\0")
    )
    head += segment(0xC4, b"\0" + one_code + b"\0") + segment(0xC4, b"\x10" + one_code + b"\xe0")
    first = segment(0xDA, b"\1\1\0\0\0\0") + _bits("0" * blocks)
    run, left = "", blocks
    while left:
        length = min(left, 32767)
        if length < 16384:
            # The last run is padded with further blocks, which decoders ignore.
            length = 16384
        run += "0" + format(length - 16384, "014b")
        left -= min(left, length)
    return head + first + (segment(0xDA, b"\1\1\0\1\x3f\x10") + _bits(run)) * (scans - 1) + b"\xff\xd9"


def jpeg_with_segments(marker: int, body: bytes, count: int) -> bytes:
    """A small JPEG with further segments."""
    sink = io.BytesIO()
    Image.new("RGB", (40, 30), "teal").save(sink, "JPEG")
    data = sink.getvalue()
    return data[:2] + (pack(">BBH", 0xFF, marker, len(body) + 2) + body) * count + data[2:]


def looping_mpo(images: int = 60_000) -> bytes:
    """A JPEG with an MPF index of many images, all of which are itself."""
    entries = pack("<IIIHH", 0x030000, 0, 0, 0, 0) * min(images, 4000)
    tags = pack("<HHI4s", 0xB000, 7, 4, b"0100") + pack("<HHII", 0xB001, 4, 1, images)
    tags += pack("<HHII", 0xB002, 7, len(entries), 8 + 2 + 36 + 4)
    index = b"MPF\0II*\0" + pack("<I", 8) + pack("<H", 3) + tags + pack("<I", 8) + entries
    return jpeg_with_segments(0xE2, index[:65533], 1)


def png_chunk(name: bytes, body: bytes) -> bytes:
    return pack(">I", len(body)) + name + body + pack(">I", zlib.crc32(name + body))


def png(
    width: int, height: int, *, depth: int = 8, kind: int = 0, pixels: bytes | None = None, extra: bytes = b""
) -> bytes:
    """A PNG of zeros; `extra` are chunks before the pixels."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[kind]
    rows = deflated_zeros(height * (1 + -(-width * samples * depth // 8))) if pixels is None else pixels
    head = png_chunk(b"IHDR", pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")


def apng(frames: int) -> bytes:
    """A PNG with animation frames after its default image."""
    control = png_chunk(b"acTL", pack(">II", frames, 0))
    frame = png_chunk(b"fcTL", pack(">IIIIIHHBB", 1, 10, 10, 0, 0, 1, 10, 0, 0))
    body = png_chunk(b"fdAT", pack(">I", 2) + zlib.compress(bytes(110)))
    data = png(10, 10, extra=control)
    return data[:-12] + (frame + body) * frames + data[-12:]


def gif(width: int, height: int, *, frame: tuple[int, int, int, int] | None = None, frames: int = 1) -> bytes:
    """A GIF; `frame` is the left, top, width and height of each frame, of which one pixel is there."""
    left, top, across, down = frame or (0, 0, width, height)
    head = b"GIF89a" + pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0\0\0\xff\xff\xff"
    picture = b"\x2c" + pack("<HHHHB", left, top, across, down, 0) + b"\x02\x02\x44\x01\0"
    return head + picture * frames + b";"


def webp(width: int, height: int) -> bytes:
    """A lossless WebP of one colour: no bits a pixel."""
    bits = (width - 1) | (height - 1) << 14
    # No transform, no colour cache, no groups; five codes of one symbol, which is 0.
    body = b"\x2f" + pack("<I", bits) + int("0001" * 5 + "000", 2).to_bytes(3, "little")
    return b"RIFF" + pack("<I", 12 + len(body)) + b"WEBPVP8L" + pack("<I", len(body)) + body


def tiff(tags: Mapping[int, tuple[int, Sequence[int]]], body: bytes, *, following: int = 0) -> bytes:
    """A TIFF with one directory; `tags` are types (3: 16 bits, 4: 32 bits) and values by number; `body` lies at 8."""
    size = {3: 2, 4: 4}
    outside = b""
    entries = b""
    at = 8 + len(body)
    for number, (kind, values) in sorted(tags.items()):
        packed = pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(values) * size[kind] > 4:
            place = pack("<I", at + len(outside))
            outside += packed
        else:
            place = packed.ljust(4, b"\0")
        entries += pack("<HHI", number, kind, len(values)) + place
    directory = pack("<H", len(tags)) + entries + pack("<I", following)
    return b"II*\0" + pack("<I", at + len(outside)) + body + outside + directory


def tiff_chain(directories: int) -> bytes:
    """A small TIFF with a long chain of further directories, which ends in its own beginning."""
    shape = {256: (3, (10,)), 257: (3, (10,)), 258: (3, (8,)), 259: (3, (1,)), 262: (3, (1,)), 273: (4, (8,))}
    shape |= {277: (3, (1,)), 278: (3, (10,)), 279: (4, (100,))}
    data = tiff(shape, bytes(100))
    directory = data[108:-4]
    chain = b""
    for number in range(1, directories):
        chain += directory + pack("<I", 108 + number * (len(directory) + 4))
    return data[:108] + chain + directory + pack("<I", 108)


def bmp_rle(width: int, height: int, runs: bytes) -> bytes:
    """A BMP of 8 bits with run-length encoding."""
    palette = bytes(1024)
    info = pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + pack("<IHHI", 54 + 1024 + len(runs), 0, 0, 54 + 1024) + info + palette + runs
