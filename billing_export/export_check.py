"""Checks an export folder offline: nothing but its files is read."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from billing_export.export import ExportFormat, Total, Totals
from billing_export.export_csv import read_csv
from billing_export.export_parquet import read_parquet
from billing_export.manifest import CHECKSUMS, MANIFEST, Manifest, ManifestFile, checksums, read_manifest, sha256_of
from schemas.line_item import decode_line_item

_FOCUS_TOTALS: Final = ("BillingCurrency", "BilledCost", "BillingAccountId")


class FolderCheck(msgspec.Struct, frozen=True, kw_only=True):
    """What was found. `differences` is empty when everything in the folder is as its manifest says."""

    manifest: Manifest | None
    differences: tuple[str, ...]


def check_folder(folder: Path) -> FolderCheck:
    """Hold every file of an export folder against its manifest, and the lines against digest and totals."""
    try:
        manifest = read_manifest(folder)
    except OSError as error:
        return FolderCheck(manifest=None, differences=(f"{MANIFEST}: cannot be read: {error.strerror}",))
    except ValueError as error:
        return FolderCheck(manifest=None, differences=(f"{MANIFEST}: is no manifest: {error}",))
    differences = [
        *_listing(folder, manifest),
        *_checksums(folder, manifest),
        *_sums(manifest),
        *(one for file in manifest.files for one in _file(folder / file.name, file, manifest)),
    ]
    return FolderCheck(manifest=manifest, differences=tuple(differences))


def _listing(folder: Path, manifest: Manifest) -> Iterator[str]:
    if not manifest.files:
        yield f"{MANIFEST}: lists no file"
    for file in manifest.files:
        if Path(file.name).name != file.name:
            yield f"{file.name}: is no name of a file in the folder"
    listed = {file.name for file in manifest.files} | {MANIFEST, CHECKSUMS}
    for path in sorted(folder.iterdir()):
        if path.name not in listed:
            yield f"{path.name}: is not in the manifest"


def _checksums(folder: Path, manifest: Manifest) -> Iterator[str]:
    try:
        said = (folder / CHECKSUMS).read_bytes()
    except OSError as error:
        yield f"{CHECKSUMS}: cannot be read: {error.strerror}"
        return
    expected = checksums(manifest, sha256_of(folder / MANIFEST)).encode()
    if said == expected:
        return
    for line in sorted(set(expected.split(b"\n")) - set(said.split(b"\n"))):
        yield f"{CHECKSUMS}: lacks the line {line.decode()!r}"
    yield f"{CHECKSUMS}: is not what the manifest and its own SHA-256 give"


def _sums(manifest: Manifest) -> Iterator[str]:
    """Whether the manifest agrees with itself."""
    count = sum(total.lines_count for total in manifest.totals)
    if count != manifest.lines_count:
        yield f"{MANIFEST}: its totals count {count} lines, and it says {manifest.lines_count}"
    if manifest.customer_totals:
        by_customer = Totals()
        for total in manifest.customer_totals:
            by_customer.count_total(total)
        yield from _totals_differ(MANIFEST, by_customer.of_all(), manifest.totals, "the totals of its customers")


def _file(path: Path, file: ManifestFile, manifest: Manifest) -> Iterator[str]:
    if not path.is_file():
        yield f"{file.name}: is missing"
        return
    size_bytes, digest = path.stat().st_size, sha256_of(path)
    if size_bytes != file.size_bytes:
        yield f"{file.name}: has {size_bytes} bytes, expected {file.size_bytes}"
    if digest != file.sha256:
        yield f"{file.name}: its SHA-256 is {digest}, expected {file.sha256}"
    try:
        yield from _lines(path, file, manifest)
    except (ValueError, KeyError, csv.Error, pa.ArrowException, ArithmeticError) as error:
        yield f"{file.name}: cannot be read as {file.format.value}: {error}"


def _lines(path: Path, file: ManifestFile, manifest: Manifest) -> Iterator[str]:
    by_customer = bool(manifest.customer_totals)
    totals = Totals(by_customer=by_customer)
    if file.format in (ExportFormat.FOCUS, ExportFormat.FOCUS_PARQUET):
        rows = _focus_csv(path) if file.format is ExportFormat.FOCUS else _focus_parquet(path)
        totals.count(rows)
    else:
        digest = hashlib.sha256()
        strange = 0
        for text, agrees in _documents(path, file.format):
            digest.update(text + b"\n")
            item = decode_line_item(text)
            totals.count([{"currency": item.currency, "amount": item.amount, "customer": item.customer}])
            strange += not agrees or item.run != manifest.run
        if strange:
            yield f"{file.name}: {strange} lines are of another run, or have columns that contradict their document"
        if digest.hexdigest() != manifest.lines_digest:
            yield f"{file.name}: the digest of its lines is {digest.hexdigest()}, expected {manifest.lines_digest}"
    if totals.lines_count != manifest.lines_count:
        yield f"{file.name}: has {totals.lines_count} lines, expected {manifest.lines_count}"
    yield from _totals_differ(file.name, totals.of_all(), manifest.totals, "its amounts")
    if by_customer:
        yield from _totals_differ(file.name, totals.of_customers(), manifest.customer_totals, "its amounts")


def _totals_differ(name: str, found: Iterable[Total], expected: Iterable[Total], what: str) -> Iterator[str]:
    have = {(one.customer or "", one.currency): one.amount for one in found}
    want = {(one.customer or "", one.currency): one.amount for one in expected}
    for customer, currency in sorted(have.keys() | want.keys()):
        one, other = have.get((customer, currency)), want.get((customer, currency))
        if one is None or other is None or Decimal(one) != Decimal(other):
            of = f" of {customer}" if customer else ""
            yield f"{name}: {what}{of} add up to {one or 'nothing'} {currency}, expected {other or 'nothing'}"


def _documents(path: Path, export_format: ExportFormat) -> Iterator[tuple[bytes, bool]]:
    if export_format is ExportFormat.PARQUET:
        yield from read_parquet(path)
    elif export_format is ExportFormat.CSV:
        for text in read_csv(path):
            yield text, True
    else:
        with path.open("rb") as lines:
            for line in lines:
                yield line.removesuffix(b"\n"), line.endswith(b"\n")


def _focus_csv(path: Path) -> Iterator[Mapping[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        for row in csv.DictReader(lines, strict=True):
            yield _of_focus({name: row[name].removeprefix("'") for name in _FOCUS_TOTALS})


def _focus_parquet(path: Path) -> Iterator[Mapping[str, str]]:
    with pq.ParquetFile(path) as source:
        for batch in source.iter_batches(columns=list(_FOCUS_TOTALS)):
            for row in batch.to_pylist():
                yield _of_focus(row)


def _of_focus(row: Mapping[str, Any]) -> dict[str, str]:
    return {
        "currency": row["BillingCurrency"],
        "amount": str(row["BilledCost"]),
        "customer": row["BillingAccountId"],
    }
