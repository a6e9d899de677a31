"""Files that are there whole or not at all."""

from __future__ import annotations

import fcntl
import glob
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from schemas.errors import RunError

PART_SUFFIX: Final = ".part"


@contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """Gives a path beside `file` to write to, which takes the place of `file` when the block ends without an error.

    A crash leaves the old file or the new one, and what it was writing beside it: `remove_abandoned` takes that away.
    Raises RunError when the folder or the file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.", suffix=PART_SUFFIX)
        fcntl.flock(handle, fcntl.LOCK_EX)
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
        os.close(handle)


def remove_abandoned(files: Iterable[Path]) -> None:
    """Remove what writers of these files left beside them when they were killed.

    A writer that lives holds a lock on its part, which ends with its process; what is locked stays.
    """
    for file in files:
        for part in file.parent.glob(f".{glob.escape(file.name)}.*{PART_SUFFIX}"):
            try:
                handle = os.open(part, os.O_RDWR)
            except FileNotFoundError:
                continue  # its writer has just ended
            except OSError as error:
                raise _unwritable(part, error) from error
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink(missing_ok=True)
            except BlockingIOError:
                continue
            except OSError as error:
                raise _unwritable(part, error) from error
            finally:
                os.close(handle)


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
