"""Whatever is called compressed: inflating ends, gives pieces of bounded size, or says what is wrong."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator

import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.inflate import STEP_BYTES, InflateError, gzip_steps, zstd_steps

PIECE_BYTES_MAX = 8 * 1024 * 1024
Steps = Callable[[bytes], Iterator[bytes]]


def gzipped(plain: bytes) -> bytes:
    return gzip.compress(plain, mtime=0)


def zstandardised(plain: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(plain)


CODINGS = pytest.mark.parametrize(("steps", "compress"), [(gzip_steps, gzipped), (zstd_steps, zstandardised)])


@CODINGS
@given(plain=st.binary(max_size=5_000), at=st.integers(0, 10_000), put=st.binary(max_size=3), cut=st.integers(0, 3))
@example(plain=b"a" * 5_000, at=6, put=b"\xff" * 3, cut=3)
@example(plain=b"", at=0, put=b"", cut=0)
def test_a_damaged_body_ends_in_bounded_pieces_or_in_an_error(
    *, steps: Steps, compress: Callable[[bytes], bytes], plain: bytes, at: int, put: bytes, cut: int
) -> None:
    whole = compress(plain)
    at %= len(whole) + 1
    body = whole[:at] + put + whole[at + cut :]

    try:
        pieces = list(steps(body))
    except InflateError:
        assert body != whole
    else:
        assert all(len(piece) <= max(STEP_BYTES, PIECE_BYTES_MAX) for piece in pieces)
        if body == whole:
            assert b"".join(pieces) == plain


@CODINGS
@given(body=st.binary(max_size=2_000))
def test_bytes_that_were_never_compressed_are_an_error_or_nothing(
    *, steps: Steps, compress: Callable[[bytes], bytes], body: bytes
) -> None:
    del compress
    try:
        inflated = b"".join(steps(body))
    except InflateError:
        return
    assert len(inflated) <= PIECE_BYTES_MAX * max(1, len(body))
