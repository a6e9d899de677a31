"""Opens a file as a stream of its plain bytes, whatever it is compressed with."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Final

import zstandard

from schemas.errors import RequestError

ProgressCallback = Callable[[int], None]
"""Called with the bytes of the file, as it lies on disk, that were read since the last call."""


def plain_suffix(path: Path) -> str:
    """The suffix that tells the format, without that of the compression: `.csv` for `flights.csv.zip`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in _COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


@contextmanager
def open_plain(path: Path, on_bytes: ProgressCallback | None = None) -> Iterator[io.BufferedIOBase]:
    """The file's plain bytes as a buffered stream; `.gz`, `.zst` and `.zip` (of one file) are inflated on the way.

    Raises RequestError when it cannot be opened.
    """
    with ExitStack() as stack:
        try:
            raw = stack.enter_context(path.open("rb"))
        except OSError as error:
            raise RequestError(f"cannot be read ({error.strerror})", where=str(path)) from error
        counted = io.BufferedReader(_Counted(raw, on_bytes)) if on_bytes else raw
        suffix = path.suffix.lower()
        if suffix == ".gz":
            yield stack.enter_context(gzip.GzipFile(fileobj=counted, mode="rb"))
        elif suffix == ".zst":
            yield stack.enter_context(io.BufferedReader(_Zstd(counted)))
        elif suffix == ".zip":
            yield stack.enter_context(_open_zip(counted, path, stack))
        else:
            yield counted


def _open_zip(raw: IO[bytes], path: Path, stack: ExitStack) -> Any:
    try:
        archive = stack.enter_context(zipfile.ZipFile(raw))
    except zipfile.BadZipFile as error:
        raise RequestError(f"is no zip file ({error})", where=str(path)) from error
    names = [name for name in archive.namelist() if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if len(names) != 1:
        raise RequestError(
            f"holds {len(names)} files, expected one", where=str(path), fix="Unpack it and name the files"
        )
    return io.BufferedReader(archive.open(names[0]))


class _Zstd(io.RawIOBase):
    """Inflates zstd frames. The library's own reader takes a file that was cut off for one that has ended."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._frame = zstandard.ZstdDecompressor().decompressobj()
        self._begun = False
        self._inflated = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._inflated:
            chunk = self._raw.read(_CHUNK_BYTES)
            if not chunk:
                if self._begun and not self._frame.eof:
                    raise EOFError("the file was cut off")
                return 0
            self._inflated = self._inflate(chunk)
        size_bytes = min(len(buffer), len(self._inflated))
        buffer[:size_bytes], self._inflated = self._inflated[:size_bytes], self._inflated[size_bytes:]
        return size_bytes

    def _inflate(self, chunk: bytes) -> bytes:
        pieces = []
        while chunk:
            if self._frame.eof:
                self._frame = zstandard.ZstdDecompressor().decompressobj()
            self._begun = True
            pieces.append(self._frame.decompress(chunk))
            chunk = self._frame.unused_data if self._frame.eof else b""
        return b"".join(pieces)


class _Counted(io.RawIOBase):
    """Passes reads on and tells how many bytes they took."""

    def __init__(self, raw: IO[bytes], on_bytes: ProgressCallback) -> None:
        self._raw = raw
        self._on_bytes = on_bytes

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._raw.seek(offset, whence)

    def readinto(self, buffer: Any) -> int:
        size_bytes: int = self._raw.readinto(buffer)  # type: ignore[attr-defined]
        self._on_bytes(size_bytes)
        return size_bytes


_COMPRESSIONS: Final = frozenset({".gz", ".zst", ".zip"})
_CHUNK_BYTES: Final = 16 * 1024

BROKEN_FILE: Final = (OSError, EOFError, zlib.error, zipfile.BadZipFile, zstandard.ZstdError)
"""What reading raises when a file is damaged or cut off."""
