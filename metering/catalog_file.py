"""Reads a catalog file: YAML or JSON in, a Catalog out, or every mistake with its line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path as FilePath
from typing import Final

import msgspec

from metering.catalog_lines import lines_of
from metering.catalog_reader import CatalogReader
from metering.catalog_text import Plain, Repeated, plain_of
from metering.currency import billing_currencies
from schemas.catalog import Catalog, Customer
from schemas.catalog_check import KEY_OF, catalog_problems
from schemas.catalog_parts import Part
from schemas.errors import CatalogError
from schemas.meter import Meter
from schemas.plan import Plan
from schemas.problem import Path, Problem, path_text
from schemas.subscription import CreditGrant, Subscription

FILE_BYTES_MAX: Final = 256 * 1024 * 1024
PROBLEMS_MAX: Final = 1_000
"""How many mistakes are written out; the rest is counted."""


class CatalogText(msgspec.Struct, frozen=True, kw_only=True):
    """A checked catalog and the text it was read from. `located` writes problems with the file, line and path."""

    catalog: Catalog
    located: Callable[[Sequence[Problem]], list[str]]


def read_catalog(file: FilePath) -> Catalog:
    """Read and check a catalog file. Raises CatalogError that lists every mistake as `file:line: path: what`."""
    return read_catalog_text(file).catalog


def read_catalog_text(file: FilePath) -> CatalogText:
    """As `read_catalog`, with the means to find a line in the file."""
    return parse_catalog_text(_text_of(file), where=str(file))


def _text_of(file: FilePath) -> str:
    try:
        if file.stat().st_size > FILE_BYTES_MAX:
            raise CatalogError([f"larger than {FILE_BYTES_MAX} bytes, expected a smaller file"], where=str(file))
        return file.read_bytes().decode("utf-8")
    except OSError as error:
        raise CatalogError([f"cannot be read: {error.strerror}"], where=str(file)) from error
    except UnicodeDecodeError as error:
        raise CatalogError([f"byte {error.start} is not UTF-8, expected a text file"], where=str(file)) from error


def parse_catalog(text: str, *, where: str = "catalog") -> Catalog:
    """The catalog that a YAML or JSON text says. Raises CatalogError as `read_catalog` does."""
    return parse_catalog_text(text, where=where).catalog


def parse_catalog_text(text: str, *, where: str) -> CatalogText:
    """As `parse_catalog`, with the means to find a line in the text; `where` is how the text is called."""
    return _parsed(
        text, where, "meters, customers, plans and subscriptions", sections=Catalog.__struct_fields__, meters=()
    )


def read_plans(file: FilePath, meters: Sequence[Meter]) -> tuple[Plan, ...]:
    """The plans of a file with nothing else, checked as in a catalog with these meters. Raises as `read_catalog`."""
    found = _parsed(_text_of(file), str(file), "plans", sections=("plans",), meters=meters).catalog.plans
    if not found:
        raise CatalogError([f"{file}:1: no plan, expected plans"], where=str(file))
    return found


def _parsed(text: str, where: str, wanted: str, *, sections: Sequence[str], meters: Sequence[Meter]) -> CatalogText:
    """A text that has the `sections`, and may refer to `meters` that stand elsewhere."""
    root = plain_of(text, where)
    if root is None:
        raise CatalogError([f"{where}:1: empty, expected {wanted}"], where=where)
    reader = CatalogReader()
    catalog: Catalog = reader.read(root, Catalog, ())
    names = _names(root)
    names["meters"] = names["meters"] | {one.name for one in meters}
    parts = [*reader.parts, *((("meters", place), meter) for place, meter in enumerate(meters))]
    misplaced = [
        Problem(path=(name,), what=f"not read here, expected {wanted} alone")
        for name in _mapping(root)
        if name in Catalog.__struct_fields__ and name not in sections
    ]
    problems = [
        *misplaced,
        *reader.problems,
        *([] if misplaced else catalog_problems(parts, names, reader.references, _broken_plans(root, reader.parts))),
        *_currency_problems(reader.parts),
    ]

    def located(some: Sequence[Problem]) -> list[str]:
        return _located(text, where, some)

    if problems:
        raise CatalogError(located(problems), where=where)
    return CatalogText(catalog=catalog, located=located)


def _located(text: str, where: str, problems: Sequence[Problem]) -> list[str]:
    """Each problem with its line, in the order of the file."""
    lines = lines_of(text, (one.path for one in problems))
    by_line = sorted(problems, key=lambda one: lines[one.path])
    written = [
        f"{where}:{lines[one.path]}: {path_text(one.path) or 'catalog'}: {one.what}" for one in by_line[:PROBLEMS_MAX]
    ]
    if len(problems) > PROBLEMS_MAX:
        written.append(f"{where}: and {len(problems) - PROBLEMS_MAX:,} more problems")
    return written


def _currency_problems(parts: Sequence[Part]) -> list[Problem]:
    """Currencies that nobody can be billed in. Their shape alone is known to `schemas`."""
    known = billing_currencies()
    return [
        Problem(path=path, what=f"found {currency!r}, expected a currency of ISO 4217 such as USD")
        for place, part in parts
        if isinstance(part, (Plan, Customer, Subscription, CreditGrant))
        for path, currency in _currencies(place, part)
        if currency not in known
    ]


def _currencies(path: Path, part: Plan | Customer | Subscription | CreditGrant) -> Iterator[tuple[Path, str]]:
    if part.currency is not None:
        yield (*path, "currency"), part.currency
    if isinstance(part, Plan):
        yield from (((*path, "prices", currency), currency) for currency in part.prices)


def _names(root: Plain) -> dict[str, AbstractSet[str]]:
    """The names the document gives in each section, also those of entries that cannot be read."""
    return {section: set(_named(root, section)) for section in KEY_OF}


def _broken_plans(root: Plain, parts: Sequence[Part]) -> AbstractSet[str]:
    """The plans of which a version could not be read."""
    built = Counter(part.id for _, part in parts if isinstance(part, Plan))
    return {name for name, count in Counter(_named(root, "plans")).items() if count > built[name]}


def _named(root: Plain, section: str) -> Iterator[str]:
    entries = _mapping(root).get(section)
    for entry in entries if isinstance(entries, list) else ():
        name = _mapping(entry).get(KEY_OF[section])
        if isinstance(name, str):
            yield name


def _mapping(value: Plain) -> dict[str, Plain]:
    if isinstance(value, Repeated):
        return value.first
    return value if isinstance(value, dict) else {}
