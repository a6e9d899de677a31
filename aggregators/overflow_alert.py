"""Says that days had more values of a dimension than their meter takes: in the log, and by a metric."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import structlog

from aggregators.metrics import GROUP_OVERFLOWS

log = structlog.get_logger(__name__)


def tell(rows: pa.Table) -> None:
    """Tell of these rows of `group_overflows`; whose they are, and their values, are for the view `usage_other`."""
    for (meter, dimension), count in Counter(
        zip(rows["meter"].to_pylist(), rows["dimension"].to_pylist(), strict=True)
    ).items():
        GROUP_OVERFLOWS.labels(meter).inc(count)
        log.warning(
            "more values than the meter takes: later ones are counted under other, see usage_other",
            meter=meter,
            dimension=dimension,
            days=count,
        )
