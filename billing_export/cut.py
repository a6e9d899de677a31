"""The cut: how far the ledger accounts for the log, per epoch and partition."""

from __future__ import annotations

from typing import Final

from clickhouse_connect.driver.client import Client

from schemas.errors import InvariantViolationError
from schemas.topics import USAGE_EVENTS
from schemas.usage_query import Cut, Position

_ENDS: Final = """
WITH
    batches AS
    (
        SELECT
            epoch, partition, first, last, catalog_version,
            row_number() OVER w AS number,
            max(last) OVER (PARTITION BY epoch, partition ORDER BY first, last
                            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
        FROM positions FINAL
        WHERE topic = {topic:String}
        WINDOW w AS (PARTITION BY epoch, partition ORDER BY first, last)
    ),
    ends AS
    (
        SELECT
            epoch, partition, max(catalog_version) AS newest, argMax(last, (catalog_version, last)) AS reached_last,
            countIf(number > 1 AND first > reached + 1) AS gaps,
            minIf(first, number > 1 AND first > reached + 1) AS at
        FROM batches
        GROUP BY epoch, partition
    ),
    starts AS
    (
        SELECT epoch, partition, max(catalog_version) AS begun, argMax(first, catalog_version) AS start
        FROM catalog_starts GROUP BY epoch, partition
    )
SELECT epoch, partition, if(begun > newest, toInt64(start) - 1, toInt64(reached_last)) AS end, gaps, at
FROM ends LEFT JOIN starts USING (epoch, partition)
WHERE end >= 0
ORDER BY epoch, partition
"""


def ledger_cut(client: Client) -> Cut:
    """The prefix of the log that the ledger accounts for at this moment.

    It ends where the newest catalog's batches end, or where it was taken up while it has none, as for a worker: a batch
    that a cut-off worker decided with an older catalog may lie beyond, and the newest meters have not counted it yet.

    Raises InvariantViolationError when offsets before its end are in no batch: nothing may be billed on that.
    """
    positions: list[Position] = []
    for epoch, partition, last, gaps, at in client.query(_ENDS, {"topic": USAGE_EVENTS}).result_rows:
        if gaps:
            raise InvariantViolationError(
                f"the ledger does not account for the offsets before {at}",
                where=f"positions, epoch {epoch}, partition {partition}",
                fix="Find out which worker skipped them: they were never counted",
            )
        positions.append(Position(epoch=epoch, partition=partition, offset=last))
    return Cut(positions=tuple(positions))
