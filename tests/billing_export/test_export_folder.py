"""An export folder: its manifest, and the check that needs nothing but the folder."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from billing_export.export import ExportFormat
from billing_export.export_check import check_folder
from billing_export.export_focus import FocusOptions
from billing_export.manifest import ManifestFile, export_folder, read_manifest, write_manifest
from billing_export.run import RunState
from schemas.errors import RunError
from tests.support.made_lines import EVERY_KIND, chunks, made_run, many_lines

FOCUS = FocusOptions(provider="Example Cloud")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Every format, with totals of customers."""
    path = tmp_path / "2013-01.1"
    export_folder(chunks(), made_run(), list(ExportFormat), path, focus=FOCUS, by_customer=True)
    return path


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in folder.iterdir()}


def test_a_folder_is_as_its_manifest_says(folder: Path) -> None:
    assert check_folder(folder).differences == ()


def test_the_manifest_says_what_it_is_of(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_bytes())

    assert {name: manifest[name] for name in ("run", "sequence", "catalog_version", "code_version", "cut")} == {
        "run": "2013-01.1",
        "sequence": 1,
        "catalog_version": 1,
        "code_version": "test",
        "cut": [{"epoch": "log/1", "partition": 0, "offset": 41}],
    }
    assert manifest["totals"] == [
        {"currency": "JPY", "lines_count": 1, "amount": "37"},
        {"currency": "USD", "lines_count": 7, "amount": "15.16"},
    ]
    assert manifest["lines_digest"] == hashlib.sha256((folder / "line_items.jsonl").read_bytes()).hexdigest()


def test_exporting_again_gives_the_same_bytes(folder: Path) -> None:
    before = bytes_of(folder)

    export_folder(chunks(), made_run(), list(ExportFormat), folder, focus=FOCUS, by_customer=True)

    assert bytes_of(folder) == before


def test_an_export_takes_away_what_a_killed_one_left_half_written(folder: Path) -> None:
    for name in ("line_items.parquet", "manifest.json", "SHA256SUMS"):
        (folder / f".{name}.k1lled_.part").write_text("ha")
    killed = check_folder(folder).differences

    export_folder(chunks(), made_run(), [ExportFormat.CSV], folder)

    assert len(killed) == 3
    assert check_folder(folder).differences == ()


def test_sha256sum_checks_the_folder(folder: Path) -> None:
    good = subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder, check=False)
    (folder / "line_items.csv").write_bytes(b"other")
    bad = subprocess.run(["sha256sum", "--check", "--status", "SHA256SUMS"], cwd=folder, check=False)

    assert (good.returncode, bad.returncode) == (0, 1)


def test_a_second_format_joins_the_first(tmp_path: Path) -> None:
    export_folder(chunks(), made_run(), [ExportFormat.CSV], tmp_path)
    export_folder(chunks(), made_run(), [ExportFormat.JSONL], tmp_path)

    assert [one.name for one in read_manifest(tmp_path).files] == ["line_items.csv", "line_items.jsonl"]
    assert check_folder(tmp_path).differences == ()


def test_a_run_without_lines_exports_and_checks(tmp_path: Path) -> None:
    export_folder([], made_run([]), list(ExportFormat), tmp_path, focus=FOCUS)

    assert check_folder(tmp_path).differences == ()


def test_a_folder_of_another_run_is_left_alone(folder: Path) -> None:
    before = bytes_of(folder)

    with pytest.raises(RunError, match=r"holds an export of run 2013-01\.1"):
        export_folder(chunks(), made_run(id="2013-02.1"), [ExportFormat.CSV], folder)
    assert bytes_of(folder) == before


def test_a_run_that_is_not_frozen_makes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is not frozen"):
        export_folder(chunks(), made_run(state=RunState.CLOSING), [ExportFormat.CSV], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_every_byte_of_every_file_counts(tmp_path: Path) -> None:
    """Each file with its last byte changed, in turn."""
    good = tmp_path / "good"
    export_folder(chunks(), made_run(), list(ExportFormat), good, focus=FOCUS)
    for name in sorted(one.name for one in good.iterdir()):
        bad = tmp_path / f"bad-{name}"
        shutil.copytree(good, bad)
        content = (bad / name).read_bytes()
        (bad / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))

        found = check_folder(bad).differences

        assert any(one.startswith((f"{name}: ", "SHA256SUMS: ")) for one in found), (name, found)


@pytest.mark.parametrize("name", ["line_items.csv", "focus.parquet", "SHA256SUMS", "manifest.json"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()

    assert any(one.startswith(f"{name}: ") for one in check_folder(folder).differences)


def test_a_file_that_nobody_wrote_is_named(folder: Path) -> None:
    (folder / "extra.csv").write_text("x")

    assert check_folder(folder).differences == ("extra.csv: is not in the manifest",)


def forge(folder: Path, change: Callable[[bytes], bytes], name: str = "line_items.jsonl") -> tuple[str, ...]:
    """Change a file and make manifest and checksums agree with the new bytes, as a careful forger would."""
    path = folder / name
    path.write_bytes(change(path.read_bytes()))
    manifest = read_manifest(folder)
    files = tuple(
        ManifestFile(
            name=one.name,
            format=one.format,
            size_bytes=(folder / one.name).stat().st_size,
            sha256=hashlib.sha256((folder / one.name).read_bytes()).hexdigest(),
        )
        for one in manifest.files
    )
    write_manifest(folder, msgspec.structs.replace(manifest, files=files))
    return check_folder(folder).differences


def test_an_amount_changed_with_all_hashes_is_found_by_digest_and_totals(folder: Path) -> None:
    found = forge(folder, lambda content: content.replace(b'"amount":"49.90"', b'"amount":"49.91"'))

    assert any("the digest of its lines is" in one for one in found)
    assert "line_items.jsonl: its amounts add up to 15.17 USD, expected 15.16" in found
    assert "line_items.jsonl: its amounts of acme add up to 15.17 USD, expected 15.16" in found


def test_a_changed_amount_of_focus_is_found_by_its_totals(folder: Path) -> None:
    found = forge(folder, lambda content: content.replace(b",49.90,acme", b",49.91,acme"), "focus.csv")

    assert found[0] == "focus.csv: its amounts add up to 15.17 USD, expected 15.16"


def test_a_cell_changed_with_all_hashes_is_found_by_the_digest(folder: Path) -> None:
    found = forge(folder, lambda content: content.replace(b"Base fee", b"Base FEE"), "line_items.csv")

    assert len(found) == 1
    assert found[0].startswith("line_items.csv: the digest of its lines is")


def test_a_line_that_is_left_out_is_found(folder: Path) -> None:
    found = forge(folder, lambda content: content.split(b"\n", 1)[1])

    assert "line_items.jsonl: has 7 lines, expected 8" in found


def test_a_parquet_whose_columns_contradict_its_documents_is_found(folder: Path) -> None:
    def raise_amounts(_: bytes) -> bytes:
        path = folder / "line_items.parquet"
        read = pq.read_table(path)
        place = read.schema.get_field_index("description")
        texts = pa.array(["Cheap"] * read.num_rows)
        pq.write_table(read.set_column(place, read.schema.field(place), texts), path)
        return path.read_bytes()

    assert forge(folder, raise_amounts, "line_items.parquet") == (
        "line_items.parquet: 8 lines are of another run, or have columns that contradict their document",
    )


@pytest.mark.parametrize("rubbish", [b"", b"{}", b"\xff\xfe", b'{"manifest_version": "x"}'])
def test_rubbish_for_a_manifest_is_one_clear_difference(folder: Path, rubbish: bytes) -> None:
    (folder / "manifest.json").write_bytes(rubbish)

    (found,) = check_folder(folder).differences

    assert found.startswith("manifest.json: is no manifest")


@pytest.mark.parametrize(
    "name", ["line_items.csv", "line_items.jsonl", "line_items.parquet", "focus.csv", "focus.parquet"]
)
@pytest.mark.parametrize("rubbish", [b"", b"\x00\xff", b"a,b\n1,2\n", b"{}\n"])
def test_rubbish_for_a_file_is_reported_and_never_raised(folder: Path, name: str, rubbish: bytes) -> None:
    found = forge(folder, lambda _: rubbish, name)

    assert found
    assert all(one.startswith(f"{name}: ") for one in found)


def test_a_listed_name_cannot_leave_the_folder(folder: Path) -> None:
    manifest = (folder / "manifest.json").read_text().replace('"line_items.csv"', '"../line_items.csv"')
    (folder / "manifest.json").write_text(manifest)

    assert "../line_items.csv: is no name of a file in the folder" in check_folder(folder).differences


def test_many_chunks_make_one_digest(tmp_path: Path) -> None:
    items = list(many_lines(1000))

    export_folder(chunks(items, size=64), made_run(items), [ExportFormat.PARQUET, ExportFormat.CSV], tmp_path)

    assert check_folder(tmp_path).differences == ()
    assert read_manifest(tmp_path).lines_count == 1000 != len(EVERY_KIND)
