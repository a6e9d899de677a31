"""Inflates gzip and zstd bodies in small steps, so that a bomb is noticed after one step and not after gigabytes."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Final

import zstandard

STEP_BYTES: Final = 256 * 1024
"""Most bytes that one step of gzip gives."""

ZSTD_SLICE_BYTES: Final = 256
"""Bytes given to zstd at a time. A block of 4 bytes can stand for 128 KiB, so one slice gives 8 MiB at the worst."""

ZSTD_WINDOW_BYTES_MAX: Final = 8 * 1024 * 1024
"""The window every decoder should support (RFC 8878), and the most memory one may ask for here."""

_GZIP_WINDOW_BITS: Final = 31


class InflateError(ValueError):
    """The body is not what its Content-Encoding says, or ends too early."""


def gzip_steps(body: bytes) -> Iterator[bytes]:
    """The inflated body, piece by piece; several gzip members in a row are one body. Raises InflateError."""
    rest = body
    while True:
        member = zlib.decompressobj(_GZIP_WINDOW_BITS)
        while not member.eof:
            try:
                piece = member.decompress(rest, STEP_BYTES)
            except zlib.error as error:
                raise InflateError(f"the body is not valid gzip ({error})") from error
            rest = member.unconsumed_tail
            if not piece and not rest and not member.eof:
                raise InflateError("the gzip body ends too early")
            yield piece
        rest = member.unused_data
        if not rest:
            return


def zstd_steps(body: bytes) -> Iterator[bytes]:
    """The inflated body, piece by piece; several zstd frames in a row are one body. Raises InflateError."""
    frame = _zstd_frame()
    begun = False
    for start in range(0, len(body), ZSTD_SLICE_BYTES):
        rest = body[start : start + ZSTD_SLICE_BYTES]
        while rest:
            if frame.eof:
                frame = _zstd_frame()
            begun = True
            try:
                piece = frame.decompress(rest)
            except zstandard.ZstdError as error:
                raise InflateError(f"the body is not valid zstd ({error})") from error
            rest = frame.unused_data if frame.eof else b""
            yield piece
    if not begun or not frame.eof:
        raise InflateError("the zstd body ends too early")


DECODERS: Final[dict[str, Callable[[bytes], Iterator[bytes]]]] = {
    "gzip": gzip_steps,
    "x-gzip": gzip_steps,
    "zstd": zstd_steps,
}
"""Content codings by the name a request gives."""


def _zstd_frame() -> zstandard.ZstdDecompressionObj:
    return zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX).decompressobj()
