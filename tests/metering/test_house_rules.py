"""The rules of CONTRIBUTING.md that no linter knows, each checked against the files of the repository."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("aggregators", "billing_export", "ingest", "metering", "schemas")
CODE = (*PACKAGES, "benchmarks", "examples")
LINES_MAX = 320
"""About 300, and room for what the formatter makes of it."""

LONGER_FOR_A_REASON = {
    "metering/config.py": "every setting stands there, and nowhere else",
}
"""Modules that may be longer than LINES_MAX lines, each with its reason."""

CLOCKS = {
    ("time", "time"),
    ("time", "time_ns"),
    ("datetime", "now"),
    ("datetime", "today"),
    ("datetime", "utcnow"),
    ("date", "today"),
}

MONEY = re.compile(
    r"schemas/(quantity|line_item|plan|rollup|rating|money|currency)\w*\.py"
    r"|aggregators/(fold|state)\w*\.py"
    r"|billing_export/(?!exporters/)\w+\.py"
)
"""Where quantities and amounts are made or changed."""


@cache
def tracked() -> tuple[PurePosixPath, ...]:
    """Every file of the repository, those not committed yet included, those ignored not."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode()
    return tuple(PurePosixPath(name) for name in sorted(set(listed.split("\0")) - {""}) if (ROOT / name).is_file())


def modules(*folders: str) -> list[PurePosixPath]:
    return [path for path in tracked() if path.suffix == ".py" and path.parts[0] in folders]


@cache
def tree(path: PurePosixPath) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"), filename=str(path))


def where(paths: list[PurePosixPath], found: Callable[[ast.Module], Iterator[ast.AST]]) -> list[str]:
    """`path:line` of every node that `found` yields."""
    return [f"{path}:{getattr(node, 'lineno', 0)}" for path in paths for node in found(tree(path))]


def clock_readings(module: ast.Module) -> Iterator[ast.AST]:
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if (owner, node.attr) in CLOCKS:
                yield node
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from (alias for alias in node.names if ("time", alias.name) in CLOCKS)


def assert_statements(module: ast.Module) -> Iterator[ast.AST]:
    return (node for node in ast.walk(module) if isinstance(node, ast.Assert))


def floats(module: ast.Module) -> Iterator[ast.AST]:
    """Every use of `float` and every float literal, but for lengths of time: names that end in `_s`."""
    seconds = {id(node) for part in ast.walk(module) for node in of_seconds(part)}
    for node in ast.walk(module):
        named = isinstance(node, ast.Name) and node.id == "float"
        literal = isinstance(node, ast.Constant) and isinstance(node.value, float)
        if (named or literal) and id(node) not in seconds:
            yield node


def of_seconds(node: ast.AST) -> Iterator[ast.AST | None]:
    """The type and the value written directly beside a name that ends in `_s`."""
    if isinstance(node, ast.AnnAssign) and is_seconds(node.target):
        yield from (node.annotation, node.value)
    elif isinstance(node, ast.Assign | ast.keyword) and all(map(is_seconds, getattr(node, "targets", [node]))):
        yield node.value
    elif isinstance(node, ast.arguments):
        positional = [*node.posonlyargs, *node.args]
        defaults: list[tuple[ast.arg, ast.expr | None]] = []
        defaults += zip(reversed(positional), reversed(node.defaults), strict=False)
        defaults += zip(node.kwonlyargs, node.kw_defaults, strict=True)
        yield from (argument.annotation for argument in [*positional, *node.kwonlyargs] if is_seconds(argument))
        yield from (default for argument, default in defaults if is_seconds(argument))


def is_seconds(named: ast.AST) -> bool:
    names = (getattr(named, field, None) for field in ("arg", "attr", "id"))
    return any(str(name).lower().endswith("_s") for name in names)


def imported(module: ast.Module) -> set[str]:
    """First names of the absolute imports."""
    names = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module.partition(".")[0])
    return names


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("import time\ntime.time()", [2]),
        ("from time import time", [1]),
        ("import datetime\ndatetime.datetime.now()\ndatetime.date.today()", [2, 3]),
        ("from datetime import datetime\nf = datetime.utcnow", [2]),
        ("import time\ntime.monotonic()\ntime.sleep(1)\nclock.now()", []),
    ],
)
def test_the_search_for_clock_readings_finds_what_it_should(code: str, lines: list[int]) -> None:
    assert [getattr(node, "lineno", 0) for node in clock_readings(ast.parse(code))] == lines


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("x = 0.5", [1]),
        ("x = float('1')", [1]),
        ("def f(x: float) -> int: ...", [1]),
        ("def f(x=0.5, *, y: int = 0.5) -> None: ...", [1, 1]),
        ("WAIT_S = 1 + 0.5", [1]),
        ("x = Decimal('0.5')\n'float'\n1", []),
        ("WAIT_S = 0.5\nwait_s: float = 0.5\nself.wait_s = 0.5\nf(wait_s=0.5)", []),
        ("def f(a, wait_s: float = 0.5, *, pause_s: float = 0.5) -> None: ...", []),
    ],
)
def test_the_search_for_floats_finds_what_it_should(code: str, lines: list[int]) -> None:
    assert [getattr(node, "lineno", 0) for node in floats(ast.parse(code))] == lines


def test_only_the_clock_module_asks_the_machine_for_the_time() -> None:
    paths = modules(*CODE, "tests")
    assert where([path for path in paths if str(path) == "metering/clock.py"], clock_readings)
    assert where([path for path in paths if str(path) != "metering/clock.py"], clock_readings) == []


def test_no_float_comes_near_a_quantity_or_an_amount() -> None:
    paths = [path for path in modules(*PACKAGES) if MONEY.fullmatch(str(path))]
    assert PurePosixPath("schemas/quantity.py") in paths
    assert where(paths, floats) == []


def test_no_invariant_hangs_on_an_assert_statement() -> None:
    """`python -O` strips them; an invariant raises InvariantViolationError."""
    assert where(modules(*PACKAGES), assert_statements) == []


def test_the_data_model_needs_msgspec_and_the_standard_library_only() -> None:
    allowed = {*sys.stdlib_module_names, "msgspec", "schemas"}
    foreign = {str(path): names for path in modules("schemas") if (names := imported(tree(path)) - allowed)}
    assert foreign == {}


def test_no_module_is_longer_than_a_reader_can_hold() -> None:
    lengths = {str(path): len((ROOT / path).read_text(encoding="utf-8").splitlines()) for path in modules(*PACKAGES)}
    assert {
        path: lines for path, lines in lengths.items() if lines > LINES_MAX and path not in LONGER_FOR_A_REASON
    } == {}
    stale = [path for path in LONGER_FOR_A_REASON if lengths.get(path, 0) <= LINES_MAX]
    assert stale == [], "these are short enough now, or gone"


def test_no_test_is_expected_to_fail_or_skipped_but_for_the_operating_system() -> None:
    # What an operating system does not have cannot be tested on it; any other reason hides a missing part.
    marks = re.compile(r"pytest\.(mark\.)?(skip|skipif|xfail|importorskip)\b(?!\(sys\.platform )")
    here = PurePosixPath(Path(__file__).relative_to(ROOT).as_posix())
    skipping = [str(path) for path in modules("tests") if path != here and marks.search((ROOT / path).read_text())]
    assert skipping == []


def test_no_package_marker_stands_below_tests() -> None:
    assert [str(path) for path in modules("tests") if path.name == "__init__.py"] == []


def test_test_files_have_names_of_their_own() -> None:
    names = [path.name for path in modules("tests") if path.name.startswith("test_")]
    assert sorted(names) == sorted(set(names))


# Written in two halves, so that this file does not contain what it looks for.
REGISTRIES = ("pypi" + ".org", "python" + "hosted.org", "maven" + ".org", "maven.apache" + ".org", "npmjs" + ".org")
MACHINE_PATHS = ("/work" + "/", "/tmp" + "/venv", "/root" + "/", "/home" + "/", "/Users" + "/", ".py" + "env/")


@pytest.mark.parametrize("text", [*REGISTRIES, *MACHINE_PATHS])
def test_no_file_names_a_registry_or_a_path_of_one_machine(text: str) -> None:
    naming = [str(path) for path in tracked() if text.encode() in (ROOT / path).read_bytes()]
    assert naming == []


def test_every_file_says_what_it_is_for_at_its_top() -> None:
    silent = [str(path) for path in modules(*CODE) if path.name != "__init__.py" and not ast.get_docstring(tree(path))]
    assert silent == []
