"""An alert as it is sent: a CloudEvent whose bytes depend on what is on record alone. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from billing_export.alerts.store import Fired
from schemas.quantity import format_quantity

SOURCE: Final = "/metering/alerts"
TYPE_PREFIX: Final = "metering.alert."


def message(fired: Fired) -> bytes:
    """The JSON of it. `id` is the alert's, so that a receiver knows a repeat."""
    alert = fired.alert
    document = {
        "specversion": "1.0",
        "id": alert.id,
        "source": SOURCE,
        "type": f"{TYPE_PREFIX}{alert.watch.value}",
        "subject": alert.customer,
        "time": _time(fired.fired_at),
        "datacontenttype": "application/json",
        "data": {
            "rule": alert.rule,
            "customer": alert.customer,
            "meter": alert.meter or None,
            "limit_id": alert.limit_id,
            "threshold_percent": alert.threshold or None,
            "limit": None if alert.limit is None else format_quantity(alert.limit),
            "value": None if alert.value is None else format_quantity(alert.value),
            "unit": alert.unit,
            "period_start": _time(alert.period_start),
            "period_end": _time(alert.period_end),
            "as_of": _time(alert.as_of),
        },
    }
    return msgspec.json.encode(document)


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
