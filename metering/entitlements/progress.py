"""What has moved in ClickHouse since one last looked: how far the ledger is, and which subjects' usage is new.

The ledger is written last. Rollups beyond the end that was read before them are therefore all that can be new, and one
that was seen early is merely seen twice. What changes rollups without moving the ledger leaves other marks.
"""

# ruff: noqa: S608 - fragments are constants and numbers counted here; values are server-side parameters
from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from clickhouse_connect.driver.client import Client

Place = tuple[str, int]
"""(epoch, partition): a partition of a log."""

WHOLE_INTERVAL_S: Final = 600.0
"""How often everything is read again; finds what `metering repair` has mended."""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """How far the ledger was at the last look, how far it is, and whether everything is to be read again."""

    since: Mapping[Place, int]
    ends: Mapping[Place, int]
    is_whole: bool

    @property
    def has_moved(self) -> bool:
        """Whether the ledger has come further."""
        return self.ends != self.since


class Follower:
    """Follows the ledger from look to look. After an error take a new one: what was new then is not told again."""

    def __init__(self) -> None:
        self._ends: dict[Place, int] = {}
        self._marks: tuple[Any, ...] = ()
        self._whole_at_s: float | None = None

    def look(self, client: Client, now_s: float) -> Look:
        """What is new. The first look is whole, and each that finds other marks or comes WHOLE_INTERVAL_S after one."""
        since, self._ends = self._ends, ledger_ends(client, self._ends)
        found = marks(client, self._ends)
        is_whole = self._whole_at_s is None or found != self._marks or now_s - self._whole_at_s > WHOLE_INTERVAL_S
        if is_whole:
            self._marks, self._whole_at_s = found, now_s
        return Look(since=since, ends=self._ends, is_whole=is_whole)


def ledger_ends(client: Client, known: Mapping[Place, int]) -> dict[Place, int]:
    """The last offset in the ledger by place, from what was known before on: only what is new is read."""
    clauses, parameters = _by_place(known, "first >")
    parameters["known"] = list(known)
    rows = client.query(
        f"""SELECT epoch, partition, max(last) FROM positions
        WHERE {clauses} OR (epoch, partition) NOT IN {{known:Array(Tuple(String, UInt32))}}
        GROUP BY epoch, partition""",
        parameters,
    ).result_rows
    return {**known, **{(epoch, partition): last for epoch, partition, last in rows}}


def moved(client: Client, look: Look, *, meters: Collection[str], start: datetime) -> set[tuple[str, str]]:
    """(meter, subject) of everything that was folded between the ends of a look, in windows from `start` on.

    What is beyond the later ends already may be in it or not.
    """
    clauses, parameters = _by_place(look.since, "position >")
    # Read before all else, and of most rows alone: no row that counts lies before it, unless a place is new.
    least = min(look.since.values(), default=0) if look.since.keys() == look.ends.keys() else 0
    parameters |= {"meters": sorted(meters), "start": start, "known": list(look.since), "least": least}
    rows = client.query(
        f"""SELECT DISTINCT meter, subject FROM rollups
        PREWHERE position >= {{least:UInt64}}
        WHERE meter IN {{meters:Array(String)}} AND window_start >= {{start:DateTime('UTC')}}
            AND ({clauses} OR (epoch, partition) NOT IN {{known:Array(Tuple(String, UInt32))}})""",
        parameters,
    ).result_rows
    return {(meter, subject) for meter, subject in rows}


def marks(client: Client, ends: Mapping[Place, int]) -> tuple[Any, ...]:
    """Differs from before when rollups may have changed that lie behind the `ends`.

    A rebuild does that, and a correction within the ends of an event from another partition.
    """
    clauses, parameters = _by_place(ends, "offset <=")
    [row] = client.query(
        f"""SELECT (SELECT max(filled_at) FROM meter_fills), (
            SELECT count() FROM corrections
            WHERE event_known AND (event_epoch, event_partition) != (epoch, partition) AND ({clauses}))""",
        parameters,
    ).result_rows
    return tuple(row)


def _by_place(ends: Mapping[Place, int], condition: str) -> tuple[str, dict[str, Any]]:
    """`condition` and the end, for each place; spelt out because ClickHouse's primary key understands it so."""
    clauses = [
        f"(epoch = {{epoch_{at}:String}} AND partition = {{partition_{at}:UInt32}} AND {condition} {{end_{at}:UInt64}})"
        for at in range(len(ends))
    ]
    parameters: dict[str, Any] = {}
    for at, ((epoch, partition), last) in enumerate(ends.items()):
        parameters |= {f"epoch_{at}": epoch, f"partition_{at}": partition, f"end_{at}": last}
    return " OR ".join(clauses) or "0", parameters
