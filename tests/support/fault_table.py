"""`python -m tests.support.fault_table`: writes the table of docs/faults.md from the tests' own sentences."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import msgspec

from tests.support.fault_numbers import LEFT_OUT_OF_SHORT

ROOT: Final = Path(__file__).parents[2]
PAGE: Final = ROOT / "docs" / "faults.md"
BEGIN: Final = "<!-- table: written by `python -m tests.support.fault_table` -->\n"
END: Final = "<!-- end of table -->\n"
NAMED: Final = re.compile(r'"""[FL]\d+\. ')
SENTENCE: Final = re.compile(r"(F\d+|L\d)\. (.+)", re.DOTALL)


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """A test, the fault it is about, and what it proves."""

    fault: str
    proves: str
    test: str


def proofs() -> list[Proof]:
    """Every test whose first line names a fault, by fault."""
    found: list[Proof] = []
    for file in sorted((ROOT / "tests").glob("*/test_*.py")):
        text = file.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)) if NAMED.search(text) else ():
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                named = SENTENCE.fullmatch(ast.get_docstring(node) or "")
                if named:
                    test = f"{file.relative_to(ROOT)}::{node.name}"
                    found.append(Proof(fault=named[1], proves=named[2], test=test))
    return sorted(found, key=lambda one: (one.fault[0], int(one.fault[1:]), one.test))


def runs_in(one: Proof) -> str:
    """Which runs have the test."""
    return "`make faults`" if one.test.partition("::")[2] in LEFT_OUT_OF_SHORT else "`make test`"


def table() -> str:
    """The table, in Markdown."""
    lines = ["| fault | what is proved | test | runs in |", "|---|---|---|---|"]
    lines += [f"| {one.fault} | {one.proves} | `{one.test}` | {runs_in(one)} |" for one in proofs()]
    return "\n".join(lines) + "\n"


def with_table(page: str) -> str:
    """The page with the table as it must be."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{table()}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
