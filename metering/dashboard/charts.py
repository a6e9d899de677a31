"""Charts as SVG, drawn on the server; the page's own style sheet gives them their colours. Pure.

A chart is a picture of a table that stands beside it, so it is one image to a screen reader, named and no more.
Drawing needs floats; no number that is read comes from one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any, Final
from xml.etree.ElementTree import Element, SubElement, tostring  # nosec B405

import msgspec
import pygal
from markupsafe import Markup

# The library puts a finder of the old kind before every import that fails, for maps that we do not draw.
sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, pygal.PluginImportFixer)]

WIDTH: Final = 860
HEIGHT: Final = 300
POINTS_MAX: Final = 120
"""Most points along a chart; more would be thinner than a line."""
SERIES_MAX: Final = 8
"""Most series of a chart: as many as there are colours that can be told apart."""
LABELS_MAX: Final = 9

_DROPPED: Final = frozenset({"defs", "desc", "script", "style"})
_THOUSANDS: Final = ((Decimal(10**12), "T"), (Decimal(10**9), "G"), (Decimal(10**6), "M"), (Decimal(10**3), "k"))


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """A row of values, one for each label of the chart; None where there is none."""

    name: str
    values: tuple[Decimal | None, ...]


def bar_chart(title: str, labels: Sequence[str], series: Sequence[Series]) -> Markup:
    """Bars along `labels`; those of several series stand on each other."""
    return _drawn(pygal.StackedBar(**_OPTIONS, margin=4), title, labels, series)


def line_chart(title: str, labels: Sequence[str], series: Sequence[Series]) -> Markup:
    """Lines along `labels`."""
    return _drawn(pygal.Line(**_OPTIONS, margin=4, dots_size=3, stroke=True), title, labels, series)


_OPTIONS: Final[dict[str, Any]] = {
    "js": (),
    "width": WIDTH,
    "height": HEIGHT,
    "explicit_size": False,
    "show_legend": False,
    "disable_xml_declaration": True,
    "no_prefix": True,
    "show_minor_x_labels": False,
    "truncate_label": -1,
    "pretty_print": False,
    "include_x_axis": True,
}


def short(number: Any) -> str:
    """A number on an axis: `1.5k` for 1500."""
    value = Decimal(repr(number)) if isinstance(number, float) else Decimal(number)
    for size, letter in _THOUSANDS:
        if abs(value) >= size:
            return f"{_few_digits(value / size)}{letter}"
    return _few_digits(value)


def _few_digits(value: Decimal) -> str:
    text = format(value.quantize(Decimal("0.001")) if abs(value) < 1 else value.quantize(Decimal("0.1")), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _drawn(chart: Any, title: str, labels: Sequence[str], series: Sequence[Series]) -> Markup:
    step = max(1, -(-len(labels) // LABELS_MAX))
    chart.x_labels = list(labels)
    chart.x_labels_major = list(labels[::step])
    chart.value_formatter = short
    for one in series[:SERIES_MAX]:
        chart.add(one.name, [None if value is None else float(value) for value in one.values])
    tree: Element = chart.render_tree()
    _plain(tree, series, labels)
    tree.attrib.pop("id", None)
    tree.set("role", "img")
    tree.set("aria-label", title)
    tree.set("focusable", "false")
    return Markup(tostring(tree, encoding="unicode"))  # noqa: S704 - made by an XML writer, which escapes every text  # nosec B704


def _plain(tree: Element, series: Sequence[Series], labels: Sequence[str]) -> None:
    """Take out what is for scripts and styles of the library, and name each mark by its exact value."""
    numbers = iter(series)
    for parent in list(tree.iter()):
        parent.attrib.pop("style", None)
        for child in list(parent):
            kind: Any = child.tag  # a function, where the child is a comment
            if not isinstance(kind, str) or kind in _DROPPED or "tooltip" in child.get("class", "").split():
                parent.remove(child)
    for group in tree.iter("g"):
        if "series" not in group.get("class", "").split():
            continue
        marks = list(_marks(group))
        if not marks:
            continue
        one = next(numbers, None)
        if one is None:
            return
        shown = [(label, value) for label, value in zip(labels, one.values, strict=False) if value is not None]
        if len(shown) == len(marks):
            for mark, (label, value) in zip(marks, shown, strict=True):
                SubElement(mark, "title").text = f"{one.name}, {label}: {value:f}"


def _marks(group: Element) -> Iterator[Element]:
    for one in group.iter("g"):
        if set(one.get("class", "").split()) & {"bar", "dots"}:
            yield one
