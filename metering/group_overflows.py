"""Reads which values days keep of a dimension, where there were more than a meter takes. Most often there are none."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from clickhouse_connect.driver.client import Client

from schemas.group_overflow import Overflow, Overflows

NAMED_MAX: Final = 1_000
"""Most subjects that are named to ClickHouse; of more, those of everybody are read."""

_ROWS: Final = """
SELECT meter, meter_version, subject, toUInt16(day), epoch, partition, position_first, position_end, dimension, kept
FROM group_overflows FINAL
WHERE meter IN {meters:Array(String)} AND day >= {first_day:Date} AND day <= {last_day:Date}
    AND (empty({subjects:Array(String)}) OR subject IN {subjects:Array(String)})
"""


def read(
    client: Client, meters: Sequence[str], start: datetime, end: datetime, subjects: Sequence[str] = ()
) -> Overflows:
    """What holds for these meters from the day of `start` to that of `end`, of some subjects or of all."""
    parameters = {
        "meters": list(meters),
        "first_day": start.astimezone(UTC).date(),
        "last_day": end.astimezone(UTC).date(),
        "subjects": list(subjects) if len(subjects) <= NAMED_MAX else [],
    }
    return Overflows(
        Overflow(
            meter=meter,
            meter_version=version,
            subject=subject,
            day=day,
            epoch=epoch,
            partition=partition,
            position_first=first,
            position_end=end_,
            dimension=dimension,
            kept=frozenset(kept),
        )
        for meter, version, subject, day, epoch, partition, first, end_, dimension, kept in client.query(
            _ROWS, parameters
        ).result_rows
    )
