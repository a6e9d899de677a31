"""The documentation says what is true: generated pages are current, and what pages name exists."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest
from prometheus_client import REGISTRY

import aggregators.metrics
import ingest.metrics
from ingest.metrics import GatewayMetrics
from metering.cli import COMMANDS
from metering.config import FOR_TESTS, Settings, variable_of
from metering.docs.cli import Command, cli_markdown, commands, exit_codes
from metering.docs.markdown import table
from metering.docs.metrics import declared_metrics, metrics_markdown, metrics_of
from metering.docs.settings import settings_markdown
from schemas.errors import InvariantViolationError, MeteringError, RequestError, UnavailableError

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
LINK = re.compile(r"(?<!!)\[[^\]\n]+\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
PROOF = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")
SHELL = re.compile(r"^```(?:console|sh)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@cache
def documents() -> dict[Path, str]:
    """Every Markdown file of the repository."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    files = [ROOT / name for name in sorted(set(listed) - {""}) if (ROOT / name).is_file()]
    return {file: file.read_text(encoding="utf-8") for file in files}


@cache
def described() -> dict[str, Command]:
    return {one.name: one for one in commands()[1]}


@pytest.mark.parametrize(
    ("name", "text"),
    [("settings.md", settings_markdown()), ("cli.md", cli_markdown()), ("metrics.md", metrics_markdown())],
    ids=["settings", "cli", "metrics"],
)
def test_a_generated_page_is_what_the_code_gives(name: str, text: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == text, "run `make docs`"


def test_every_setting_is_on_the_page_once() -> None:
    page = (DOCS / "settings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(METERING_\w+)` \|", page, re.MULTILINE)

    assert sorted(rows) == sorted(variable_of(name) for name in Settings.__struct_fields__)


def test_a_variable_named_anywhere_is_a_setting() -> None:
    known = {variable_of(name) for name in Settings.__struct_fields__}
    known |= {f"{name}_FILE" for name in known} | {"METERING_X", "METERING_X_FILE", *FOR_TESTS}

    for file, text in documents().items():
        assert set(re.findall(r"METERING_[A-Z_]+[A-Z]", text)) <= known, file


def test_every_command_and_group_is_described() -> None:
    assert {name.split()[0] for name in described()} == set(COMMANDS)


@pytest.mark.parametrize("name", [one.name for one in commands()[1]])
def test_a_command_has_help_with_an_example_of_itself(name: str) -> None:
    command = described()[name]

    assert command.about
    assert command.examples
    for example in command.examples:
        assert re.match(rf"(METERING_\w+=\S+ )*metering {name}\b", example), example
        assert_can_be_called(example)
    assert [one.written for one in command.options if not one.help] == []


def test_the_commands_of_every_page_exist_with_their_options() -> None:
    called = [line for text in documents().values() for line in shell_lines(text) if re.match(CALL, line)]

    assert len(called) > 40
    for line in called:
        assert_can_be_called(line)


CALL = r"(METERING_\w+=\S+ )*metering [a-z]"


def assert_can_be_called(line: str) -> None:
    words = [word for word in shlex.split(line, comments=True) if not word.startswith("METERING_")]
    command = described()[" ".join(words[1:3]) if " ".join(words[1:3]) in described() else words[1]]
    options = {flag.rstrip(",") for one in command.options for flag in one.written.strip("`").split()}
    used = {word.partition("=")[0] for word in words[2:] if word.startswith("--")}
    assert used <= options | {"--help"}, line


def test_the_make_targets_that_pages_name_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):.*## ", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    text = "\n".join(documents().values())
    named = set(re.findall(r"^\$? ?make ([a-z]+)\b", text, re.MULTILINE))
    named |= set(re.findall(r"`make ([a-z]+)`", text))

    assert {"demo", "test", "docs", "check"} <= named <= targets


def test_every_exit_code_of_an_error_has_words() -> None:
    codes = {int(code) for code, _ in exit_codes()}

    assert {error.exit_code for error in (MeteringError, RequestError, UnavailableError, InvariantViolationError)} == {
        1,
        2,
        3,
        70,
    }
    assert codes == {0, 1, 2, 3, 70, 75, 130}


def test_every_metric_that_is_exported_is_on_the_page() -> None:
    gateway = {one.name for one in GatewayMetrics().registry.collect()}
    worker = {one.name for one in REGISTRY.collect() if one.name.startswith("metering_worker_")}

    for module, exported in ((ingest.metrics, gateway), (aggregators.metrics, worker)):
        declared = {one.name for one in metrics_of(module)}
        assert {name.removesuffix("_total") for name in declared} == exported


def test_a_metric_is_described_by_the_comment_above_it() -> None:
    source = """
# Requests, by status.
# Worry when it grows.
REQUESTS = Counter("requests_total", "Requests", ["status", "path"])

# How many wait.
EVENTS = Gauge("waiting_events", "Events")
BYTES = Gauge(
    "waiting_bytes", "Bytes"
)
"""
    assert [(one.name, one.kind, one.labels, one.comment) for one in declared_metrics(source)] == [
        ("requests_total", "counter", ("status", "path"), "Requests, by status. Worry when it grows."),
        ("waiting_events", "gauge", (), "How many wait."),
        ("waiting_bytes", "gauge", (), "How many wait."),
    ]


def test_a_metric_without_a_comment_is_refused() -> None:
    with pytest.raises(LookupError, match="requests_total has no comment"):
        declared_metrics('REQUESTS = Counter("requests_total", "Requests")')


def test_a_cell_cannot_end_its_row() -> None:
    assert table(("a", "b"), [("x|y", "z")]) == "| a | b |\n|---|---|\n| x\\|y | z |\n"


def test_links_lead_somewhere() -> None:
    broken = [
        f"{file.relative_to(ROOT)}: {link}"
        for file, text in documents().items()
        for link in LINK.findall(FENCE.sub("", text))
        if not link.startswith("https://") and not leads_somewhere(file, link)
    ]

    assert broken == []


def leads_somewhere(file: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (file.parent / unquote(path)).resolve() if path else file
    if not target.exists():
        return False
    return not anchor or anchor in set(anchors(target.read_text(encoding="utf-8")))


def anchors(text: str) -> Iterator[str]:
    """The anchors that a forge makes of headings."""
    for heading in re.findall(r"^#+ (.+)$", FENCE.sub("", text), re.MULTILINE):
        yield re.sub(r"[^\w\- ]", "", heading.replace("`", "").lower()).replace(" ", "-")


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text(encoding="utf-8")
    linked = {(DOCS / link).resolve() for link in LINK.findall(index)}

    assert [page.name for page in DOCS.rglob("*.md") if page.name != "README.md" and page.resolve() not in linked] == []


def test_decisions_are_numbered_without_a_gap_and_under_their_title() -> None:
    files = sorted((DOCS / "decisions").glob("*.md"))

    assert [int(file.name[:4]) for file in files] == list(range(1, len(files) + 1))
    for file in files:
        title = file.read_text(encoding="utf-8").splitlines()[0]
        assert title.startswith(f"# {int(file.name[:4])}. ")
        assert f"- [{title[2:]}](decisions/{file.name})" in (DOCS / "README.md").read_text(encoding="utf-8")


def test_every_test_that_a_page_names_exists() -> None:
    named = {proof for text in documents().values() for proof in PROOF.findall(text)}
    alone = {name for text in documents().values() for name in re.findall(r"`(test_\w+)`", text)}

    assert len(named) > 40
    assert sorted(f"{path}::{name}" for path, name in named if name not in functions_of(ROOT / path)) == []
    everywhere = {name for file in (ROOT / "tests").rglob("test_*.py") for name in functions_of(file)}
    assert alone - everywhere == set()


@cache
def functions_of(file: Path) -> frozenset[str]:
    if not file.is_file():
        return frozenset()
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_every_guarantee_names_its_proof() -> None:
    text = (DOCS / "guarantees.md").read_text(encoding="utf-8")
    sections = re.split(r"^## ", text, flags=re.MULTILINE)[1:]

    assert sections[-1].startswith("What is not promised\n")
    assert len(sections) > 10
    # Behind a colon stands what was measured.
    proof = re.compile(rf"^- {PROOF.pattern}(?:: .+)?$", re.MULTILINE)
    assert [one.splitlines()[0] for one in sections[:-1] if not proof.search(one)] == []


def test_the_files_that_pages_name_exist() -> None:
    folders = "aggregators|benchmarks|billing_export|docs|examples|ingest|metering|schemas|tests"
    pages = {file: text for file, text in documents().items() if file.is_relative_to(DOCS) or file.name == "README.md"}
    named = {(file, path) for file, text in pages.items() for path in re.findall(rf"`((?:{folders})/[\w./]+)`", text)}

    assert len(named) > 40
    assert sorted(f"{file.name}: {path}" for file, path in named if not (ROOT / path).exists()) == []


def shell_lines(text: str) -> Iterator[str]:
    """Commands of shell blocks: lines after `$ ` in a console block, all lines of a script."""
    for block in re.finditer(SHELL, text):
        is_console = block.group(0).startswith("```console")
        for line in block.group(1).splitlines():
            if not is_console or line.startswith("$ "):
                yield line.removeprefix("$ ")
