"""Reads a catalog file: YAML text in, a Catalog out, or every mistake with its line.

Scalars are kept as the text that stands in the file: 1.10 stays 1.10, NO stays NO, and no float ever exists.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from pathlib import Path as FilePath
from typing import Any, Final

import msgspec
from babel.numbers import list_currencies
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from metering.node_reader import NodeReader
from schemas.catalog import Catalog, Customer
from schemas.catalog_check import KEY_OF, Part, catalog_problems
from schemas.errors import CatalogError
from schemas.plan import Plan
from schemas.problem import Path, Problem, path_text

FILE_BYTES_MAX: Final = 64 * 1024 * 1024


class CatalogText(msgspec.Struct, frozen=True, kw_only=True):
    """A catalog and the text it was read from. `located` writes a problem with the file, its line and its path."""

    catalog: Catalog
    located: Callable[[Problem], str]


def read_catalog(file: FilePath) -> Catalog:
    """Read and check a catalog file. Raises CatalogError that lists every mistake as `file:line: path: what`."""
    return read_catalog_text(file).catalog


def read_catalog_text(file: FilePath) -> CatalogText:
    """As `read_catalog`, with the means to find a line in the file."""
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            raise CatalogError([f"larger than {FILE_BYTES_MAX} bytes, expected a smaller file"], where=str(file))
        text = file.read_bytes().decode("utf-8")
    except OSError as error:
        raise CatalogError([f"cannot be read: {error.strerror}"], where=str(file)) from error
    except UnicodeDecodeError as error:
        raise CatalogError([f"byte {error.start} is not UTF-8, expected a text file"], where=str(file)) from error
    return parse_catalog_text(text, where=str(file))


def parse_catalog(text: str, *, where: str = "catalog") -> Catalog:
    """The catalog that a YAML (or JSON) text says. Raises CatalogError as `read_catalog` does."""
    return parse_catalog_text(text, where=where).catalog


def parse_catalog_text(text: str, *, where: str) -> CatalogText:
    """As `parse_catalog`, with the means to find a line in the text; `where` is how the text is called."""
    root = _compose(text, where)
    reader = NodeReader()
    catalog: Catalog = reader.read(root, Catalog, ())
    problems = [
        *reader.problems,
        *catalog_problems(reader.parts, _names(root), reader.references),
        *_currency_problems(reader.parts),
    ]

    def located(problem: Problem) -> str:
        return f"{where}:{_line(root, problem.path)}: {path_text(problem.path) or 'catalog'}: {problem.what}"

    if problems:
        by_line = sorted(problems, key=lambda one: _line(root, one.path))
        raise CatalogError([located(one) for one in by_line], where=where)
    return CatalogText(catalog=catalog, located=located)


def _compose(text: str, where: str) -> Node:
    try:
        root: Node | None = YAML(typ="safe", pure=True).compose(io.StringIO(text))
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = 1 if mark is None else mark.line + 1
        what = " ".join(str(part) for part in (error.context, error.problem) if part)
        raise CatalogError([f"{where}:{line}: {what}, expected YAML"], where=where) from error
    except (YAMLError, ValueError, RecursionError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CatalogError([f"{where}:1: {first}, expected YAML"], where=where) from error
    if root is None:
        raise CatalogError([f"{where}:1: empty, expected meters, customers, plans and subscriptions"], where=where)
    return root


def _currency_problems(parts: list[Part]) -> list[Problem]:
    """Currencies that do not exist. Their shape alone is known to `schemas`; the list is babel's."""
    known = list_currencies()
    return [
        Problem(
            path=(*path, "currency"),
            what=f"found {part.currency!r}, expected a currency of ISO 4217 such as USD",
        )
        for path, part in parts
        if isinstance(part, (Plan, Customer)) and part.currency not in known
    ]


def _names(root: Node) -> dict[str, AbstractSet[str]]:
    """The names the document gives in each section, also those of entries that cannot be read."""
    found: dict[str, set[str]] = {section: set() for section in KEY_OF}
    for section, entry_key in KEY_OF.items():
        entries = _child(root, section)
        for entry in entries.value if isinstance(entries, SequenceNode) else []:
            name = _child(entry, entry_key)
            if isinstance(name, ScalarNode):
                found[section].add(str(name.value))
    return dict(found)


def _child(node: Any, step: str | int) -> Node | None:
    if isinstance(node, MappingNode):
        return next((value for key, value in node.value if key.value == step), None)
    if isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
        child: Node = node.value[step]
        return child
    return None


def _line(root: Node, path: Path) -> int:
    """The line of the deepest node on the path that is there: a missing key is reported where its record begins."""
    node = root
    for step in path:
        child = _child(node, step)
        if child is None:
            break
        node = child
    line: int = node.start_mark.line
    return line + 1
