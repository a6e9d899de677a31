"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from schemas.errors import RunError


@contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """Gives a path beside `file` to write to, which takes the place of `file` when the block ends without an error.

    A crash leaves the old file or the new one. Raises RunError when the folder or the file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=".part")
        os.close(handle)
    except OSError as error:
        raise _unwritable(file, error) from error
    part = Path(name)
    try:
        yield part
        part.chmod(0o644)
        _to_disk(part)
        part.replace(file)
        _to_disk(file.parent)  # the rename itself is durable only once the folder is
    except OSError as error:
        raise _unwritable(file, error) from error
    finally:
        part.unlink(missing_ok=True)


def write_atomically(file: Path, lines: Iterable[str]) -> int:
    """Write UTF-8 lines to `file`, whole or not at all; returns how many. Raises RunError."""
    count = 0
    with whole_file(file) as part, part.open("w", encoding="utf-8", newline="") as out:
        for line in lines:
            out.write(line)
            count += 1
    return count


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _unwritable(file: Path, error: OSError) -> RunError:
    return RunError(f"cannot be written: {error.strerror}", where=str(file), fix="Choose another --out")
