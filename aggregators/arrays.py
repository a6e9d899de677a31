"""Arrow arrays of what events and states are made of, as ClickHouse takes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import pyarrow as pa

QUANTITY: Final = pa.decimal128(38, 12)
SUM: Final = pa.decimal256(76, 12)
MOMENT: Final = pa.decimal256(76, 18)
DIGEST: Final = pa.binary(16)
MICROSECONDS: Final = pa.timestamp("us", "UTC")
MILLISECONDS: Final = pa.timestamp("ms", "UTC")
SECONDS: Final = pa.timestamp("s", "UTC")


def texts(values: Sequence[str]) -> pa.Array:
    """Most often all events of a batch share source and type, and one text is converted once."""
    if values and values.count(values[0]) == len(values):
        return constant(values[0], len(values), pa.string())
    return pa.array(values, pa.string())


def times(values_us: Sequence[int]) -> pa.Array:
    """Microseconds since 1970."""
    return pa.array(values_us, pa.int64()).cast(MICROSECONDS)


def digests(values: Iterable[int]) -> pa.Array:
    """Numbers of 128 bits, little-endian."""
    return digest_bytes(b"".join([one.to_bytes(16, "little") for one in values]))


def digest_bytes(joined: bytes) -> pa.Array:
    """The same from their bytes, one after another."""
    return pa.Array.from_buffers(DIGEST, len(joined) // 16, [None, pa.py_buffer(joined)])


def constant(value: object, count: int, kind: pa.DataType) -> pa.Array:
    """One value, over and over."""
    return pa.repeat(pa.scalar(value, kind), count)
