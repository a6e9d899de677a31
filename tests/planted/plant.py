"""`make planted`: plants one bug at a time in a copy of the tree and tells which test caught it.

The tests must pass in the copy before the first bug.
Writes build/planted.json and build/planted.md. Ends with exit code 1 when a bug was caught by no test.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec

from tests.planted.bugs import BUGS, Bug

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 600
SIMULATED_SEEDS = "200"


class Caught(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a planted bug; `by` is the test that failed, or empty."""

    bug: str
    file: str
    by: str


def main(names: Sequence[str]) -> int:
    """Plant all bugs, or those whose name contains one of the words given."""
    chosen = [one for one in BUGS if not names or any(word in one.name for word in names)]
    found: list[Caught] = []
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        copy_tree(tree)
        for test in sorted({test for one in chosen for test in one.tests}):
            if by := failing(tree, test):
                raise SystemExit(f"{by} fails without any bug; nothing can be told from it")
        for one in chosen:
            by = plant(tree, one)
            found.append(Caught(bug=one.name, file=one.file, by=by))
            sys.stdout.write(f"{'caught' if by else 'MISSED'}: {one.name}{f' ({by})' if by else ''}\n")
            sys.stdout.flush()
    write_report(found)
    return 0 if all(one.by for one in found) else 1


def copy_tree(to: Path) -> None:
    """The files of the repository as they are now."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in listed.stdout.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name)


def plant(tree: Path, one: Bug) -> str:
    """Put a bug in, run its tests until one fails, take it out again; the test that failed, or empty."""
    path = tree / one.file
    whole = path.read_text(encoding="utf-8")
    if whole.count(one.old) != 1:
        raise SystemExit(f"{one.file} does not have this once: {one.old!r}")
    path.write_text(whole.replace(one.old, one.new), encoding="utf-8")
    try:
        return next((by for test in one.tests if (by := failing(tree, test))), "")
    finally:
        path.write_text(whole, encoding="utf-8")


def failing(tree: Path, test: str) -> str:
    """The first test that fails there, or empty when all pass."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", test],
        cwd=tree,
        env={**os.environ, "SIMULATE_SEEDS": SIMULATED_SEEDS, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode == 0:
        return ""
    if done.returncode != 1:
        raise SystemExit(f"{test} cannot be run\n{done.stdout}{done.stderr}")
    named = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return named.group(1) if named else test


def write_report(found: Sequence[Caught]) -> None:
    build = ROOT / "build"
    build.mkdir(exist_ok=True)
    (build / "planted.json").write_bytes(msgspec.json.format(msgspec.json.encode(list(found)), indent=2) + b"\n")
    lines = ["| planted bug | in | caught by |", "|---|---|---|"]
    lines += [f"| {one.bug} | `{one.file}` | {f'`{one.by}`' if one.by else '**no test**'} |" for one in found]
    (build / "planted.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
