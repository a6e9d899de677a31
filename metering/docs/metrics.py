"""docs/metrics.md: every metric of the gateway and of a worker, with the comment that stands above it in the code."""

from __future__ import annotations

import ast
import inspect
from types import ModuleType
from typing import Final

import msgspec

import aggregators.metrics
import billing_export.alerts.metrics
import ingest.metrics
import metering.entitlements.metrics
from metering.docs.markdown import linked, table

_KINDS: Final = {"Counter": "counter", "Gauge": "gauge", "Histogram": "histogram"}

_HEAD: Final = """\
# Metrics

Generated from `ingest/metrics.py`, `metering/entitlements/metrics.py`, `aggregators/metrics.py` and
`billing_export/alerts/metrics.py` by `make docs`; a test compares.

Prometheus reads them from `/metrics` of the gateway (port 18080), of each worker (port 18081) and of `metering alerts`
(where `METERING_ALERTS_METRICS_PORT` says). A histogram is shown
as `…_bucket`, `…_sum` and `…_count`. A worker shows besides what the Prometheus client says of every Python process.
"""

_PARTS: Final = (
    ("The gateway", ingest.metrics),
    ("Entitlements, in the gateway", metering.entitlements.metrics),
    ("A worker", aggregators.metrics),
    ("Alerts", billing_export.alerts.metrics),
)


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """One metric as its declaration gives it. `comment` says what it means and when to worry."""

    name: str
    kind: str
    labels: tuple[str, ...]
    comment: str


def metrics_of(module: ModuleType) -> list[Metric]:
    """Every metric that a module declares, in order. Raises LookupError for one without a comment."""
    return declared_metrics(inspect.getsource(module))


def declared_metrics(source: str) -> list[Metric]:
    """The metrics of a source text. Two that follow each other without a blank line share the comment of the first."""
    lines = source.splitlines()
    found: list[Metric] = []
    last_line, comment = -1, ""
    for statement in _assignments(ast.parse(source)):
        call = statement.value
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in _KINDS):
            continue
        if statement.lineno != last_line + 1:
            comment = _comment_above(lines, statement.lineno)
        last_line = statement.end_lineno or statement.lineno
        name, _, *labels = [ast.literal_eval(one) for one in call.args]
        if not comment:
            raise LookupError(f"metric {name} has no comment on what it means and when to worry")
        found.append(
            Metric(name=name, kind=_KINDS[call.func.id], labels=tuple(labels[0]) if labels else (), comment=comment)
        )
    return found


def metrics_markdown() -> str:
    """The document. Pure."""
    parts = [_HEAD]
    for title, module in _PARTS:
        rows = [(_shown(one), one.kind, one.comment) for one in metrics_of(module)]
        parts.append(f"## {title}\n\n{table(('metric', 'kind', 'what it means, and when to worry'), rows)}")
    return linked("\n".join(parts))


def _shown(metric: Metric) -> str:
    labels = f"{{{', '.join(metric.labels)}}}" if metric.labels else ""
    return f"`{metric.name}{labels}`"


def _assignments(tree: ast.Module) -> list[ast.Assign | ast.AnnAssign]:
    found = [node for node in ast.walk(tree) if isinstance(node, ast.Assign | ast.AnnAssign)]
    return sorted(found, key=lambda node: node.lineno)


def _comment_above(lines: list[str], number: int) -> str:
    """The comment on the lines directly above line `number`, which counts from 1."""
    words: list[str] = []
    at = number - 2
    while at >= 0 and lines[at].strip().startswith("#"):
        words.insert(0, lines[at].strip().removeprefix("#").strip())
        at -= 1
    return " ".join(words)
