"""A file that another part of this process can open by its path, and that takes no place on a disk."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def memory_file(parts: Iterable[memoryview]) -> Iterator[str]:
    """The path of a file with these bytes, for as long as the block runs; on a disk where memory cannot be a file."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("insert")
    else:  # macOS
        handle, path = tempfile.mkstemp()
        Path(path).unlink()
    try:
        for part in parts:
            rest = part
            while rest:
                rest = rest[os.write(handle, rest) :]
        os.lseek(handle, 0, os.SEEK_SET)
        yield f"/dev/fd/{handle}"
    finally:
        os.close(handle)
