"""The manifest of an export folder: what is in it, what run it is of, and what that adds up to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from billing_export.export import FILE_NAMES, Chunk, ExportFormat, Total, Totals, write_files
from billing_export.export_file import remove_abandoned, write_atomically
from billing_export.export_focus import FocusOptions
from billing_export.export_lines import frozen_digest, require_frozen
from billing_export.run import Run
from schemas.errors import RunError
from schemas.line_item import json_schema
from schemas.usage_query import Position

MANIFEST: Final = "manifest.json"
CHECKSUMS: Final = "SHA256SUMS"
MANIFEST_VERSION: Final = 1


class ManifestFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the folder."""

    name: str
    format: ExportFormat
    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that a third party needs to know of an export. It has no time in it: exporting again gives the same bytes."""

    manifest_version: int
    run: str
    sequence: Annotated[int, Meta(description="Place of the run among all runs, from 1.")]
    period: str
    catalog_version: int
    code_version: Annotated[str, Meta(description="Version of the code that made the lines.")]
    cut: Annotated[tuple[Position, ...], Meta(description="Last offset that counts, per log and partition.")]
    line_item_schema: Annotated[str, Meta(description="SHA-256 of the JSON Schema of a line item.")]
    lines_count: int
    lines_digest: Annotated[str, Meta(description="SHA-256 of all lines as canonical JSON, each with a line feed.")]
    totals: tuple[Total, ...]
    customer_totals: tuple[Total, ...] = ()
    files: tuple[ManifestFile, ...]


class ExportFolder(msgspec.Struct, frozen=True, kw_only=True):
    """A folder that was written, with its manifest."""

    path: Path
    manifest: Manifest


def export_folder(
    lines: Iterable[Chunk],
    run: Run,
    formats: Sequence[ExportFormat],
    folder: Path,
    *,
    focus: FocusOptions | None = None,
    by_customer: bool = False,
    on_lines: Callable[[int], None] = lambda _: None,
) -> ExportFolder:
    """Write the lines of a frozen run in these formats to `folder`, with manifest.json and SHA256SUMS.

    `lines` are the run's `Documents`, or what stands for them. Files of the same run that an earlier export wrote there
    stay and stay listed; what a killed one left half written is removed. Raises RunError for a run that is not frozen,
    for a folder that holds another run, and when something cannot be written.
    """
    require_frozen(run)
    kept = _kept(folder, run)
    remove_abandoned(folder / name for name in (*FILE_NAMES.values(), MANIFEST, CHECKSUMS))
    totals = Totals(by_customer=by_customer)
    files = {one: folder / FILE_NAMES[one] for one in formats}
    write_files(lines, files, totals=totals, focus=focus, on_lines=on_lines)
    written = {one.value: manifest_file(file, one) for one, file in files.items()}
    listed = {one.format.value: one for one in kept} | written
    manifest = Manifest(
        manifest_version=MANIFEST_VERSION,
        run=run.id,
        sequence=run.sequence,
        period=run.period,
        catalog_version=run.catalog_version,
        code_version=run.code_version,
        cut=run.cut.positions,
        line_item_schema=hashlib.sha256(json_schema()).hexdigest(),
        lines_count=totals.lines_count,
        lines_digest=frozen_digest(run),
        totals=totals.of_all(),
        customer_totals=totals.of_customers(),
        files=tuple(sorted(listed.values(), key=lambda one: one.name)),
    )
    write_manifest(folder, manifest)
    return ExportFolder(path=folder, manifest=manifest)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write manifest.json, and SHA256SUMS, which `sha256sum --check` reads, last."""
    text = encode_manifest(manifest)
    write_atomically(folder / MANIFEST, [text])
    write_atomically(folder / CHECKSUMS, [checksums(manifest, hashlib.sha256(text.encode()).hexdigest())])


def checksums(manifest: Manifest, manifest_sha256: str) -> str:
    """What SHA256SUMS holds."""
    sums = [(one.name, one.sha256) for one in manifest.files] + [(MANIFEST, manifest_sha256)]
    return "".join(f"{digest}  {name}\n" for name, digest in sorted(sums))


def encode_manifest(manifest: Manifest) -> str:
    """The manifest as it stands in its file."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2).decode() + "\n"


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a folder. Raises OSError when there is none, ValueError when it is none."""
    return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)


def manifest_file(file: Path, export_format: ExportFormat) -> ManifestFile:
    """What the manifest says about a file."""
    return ManifestFile(name=file.name, format=export_format, size_bytes=file.stat().st_size, sha256=sha256_of(file))


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with file.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _kept(folder: Path, run: Run) -> list[ManifestFile]:
    """Files of the same run that stand in the folder as its manifest says."""
    try:
        before = read_manifest(folder)
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise RunError(
            f"cannot be read as a manifest ({error})", where=str(folder / MANIFEST), fix="Choose another --out"
        ) from error
    if (before.run, before.lines_digest) != (run.id, frozen_digest(run)):
        raise RunError(
            f"holds an export of run {before.run} with the lines {before.lines_digest}",
            where=str(folder),
            fix="Choose another --out",
        )
    return [one for one in before.files if _stands(folder / one.name, one)]


def _stands(file: Path, listed: ManifestFile) -> bool:
    return file.is_file() and (file.stat().st_size, sha256_of(file)) == (listed.size_bytes, listed.sha256)
