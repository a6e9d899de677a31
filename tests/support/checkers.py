"""What checks exports and lives in `.checkers`: focus-validator, and stripe-mock as a server."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xml.etree import ElementTree as ET

import httpx

from metering.embedded.ports import free_ports

ROOT = Path(__file__).parents[2]
CHECKERS = ROOT / ".checkers"
STRIPE_MOCK_VARIABLE = "METERING_STRIPE_MOCK"
START_TIMEOUT_S = 30.0


def checker(name: str) -> Path:
    """A program of `.checkers`. It is never gone without: a check that cannot run has failed."""
    path = CHECKERS / "bin" / name
    if not path.exists():
        raise RuntimeError(f"{path} is not there: run `make checkers`")
    return path


@contextmanager
def stripe_mock() -> Iterator[str]:
    """The address of a stripe-mock: the one METERING_STRIPE_MOCK names, else one of our own."""
    named = os.environ.get(STRIPE_MOCK_VARIABLE)
    if named:
        yield named
        return
    (port,) = free_ports(1)
    command = [str(checker("stripe-mock")), "-http-addr", f"127.0.0.1:{port}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(url, process)
        yield url
    finally:
        process.kill()
        process.wait()


def focus_failures(file: Path, tmp_path: Path, *criteria: str) -> tuple[dict[str, str], int]:
    """What focus-validator finds wrong in a file by rule, and how many rules it checked. Its own words."""
    report = tmp_path / f"{file.name}.xml"
    python = checker("python")
    packages = next((CHECKERS / "lib").glob("python3.*/site-packages"))
    command = [
        str(python), str(ROOT / "tests" / "support" / "focus_check.py"), "--data-file", str(file),
        "--validate-version", "1.2", "--block-download", "--output-type", "unittest",
        "--output-destination", str(report),
    ]  # fmt: skip
    if criteria:
        command += ["--applicability-criteria", ",".join(criteria)]
    # It looks for the list of currencies from the folder it is installed in.
    done = subprocess.run(command, cwd=packages, capture_output=True, text=True, timeout=180, check=False)
    if not report.exists():
        raise RuntimeError(f"focus-validator gave no report\n{done.stdout}{done.stderr}")
    failures, checked = {}, 0
    for case in ET.parse(report).getroot().iter("testcase"):  # noqa: S314 - our own file
        tags = {child.tag: child for child in case}
        if "skipped" not in tags:
            checked += 1
        for tag in ("failure", "error"):
            if tag in tags:
                failures[case.attrib["name"].split(" ")[0]] = tags[tag].attrib.get("message", "")
    return failures, checked


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"stripe-mock ended with {process.returncode}")
        try:
            httpx.get(url, timeout=1)
        except httpx.HTTPError:
            time.sleep(0.1)
            continue
        return
    raise RuntimeError(f"stripe-mock does not answer at {url}; {sys.platform}")
