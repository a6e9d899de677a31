"""A request's events are judged as each would be by itself, whichever way is taken."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from ingest.producer import Record
from ingest.validate import judge
from metering.config import Settings
from schemas.admission import Admission
from schemas.meter import Aggregation, Meter, MeterVersion

NOW = datetime(2026, 3, 1, tzinfo=UTC)
SETTINGS = Settings(event_ahead_s_max=60, event_age_s_max=3_600, event_bytes_max=1_024, event_nesting_max=4)
BYTES = Meter(
    name="bytes", event_type="call", aggregation=Aggregation.SUM, value="bytes", group_by={"region": "region"}
)
ADMISSION = Admission([MeterVersion(meter=BYTES, version=1, introduced_in=1, start=None, end=None)], ["seen"])


def event(**changes: Any) -> bytes:
    fields = {
        "specversion": "1.0",
        "id": "1",
        "source": "s",
        "type": "call",
        "subject": "ü",
        "time": NOW.isoformat(),
        "data": {"bytes": 1, "region": "eu"},
    }
    return json.dumps({**fields, **changes}, ensure_ascii=False).encode()


GOOD = [event(), event(id="2", type="seen", data=None), event(time=(NOW + timedelta(seconds=60)).isoformat())]
BAD = [
    event(subject=""),
    event(type="other"),
    event(data={"bytes": "much"}),
    event(data={"bytes": 1, "region": []}),
    event(time=(NOW + timedelta(seconds=61)).isoformat()),
    event(time=(NOW - timedelta(seconds=3_601)).isoformat()),
    event(data={"bytes": 1, "a": [[[[1]]]]}),
    event(data={"bytes": 1, "text": "x" * 1_024}),
    event(specversion="0.3"),
    b"\xff",
    b"",
]


@given(st.lists(st.sampled_from(GOOD), max_size=6), st.lists(st.sampled_from(GOOD + BAD), max_size=3))
def test_events_are_judged_as_each_would_be_by_itself(good: list[bytes], others: list[bytes]) -> None:
    events = [*good, *others]
    alone = [judge([one], [0], admission=ADMISSION, now=NOW, settings=SETTINGS) for one in events]

    found = judge(events, range(len(events)), admission=ADMISSION, now=NOW, settings=SETTINGS)

    assert found.records == {index: one.records[0] for index, one in enumerate(alone) if one.records}
    assert [(one.index, one.reason, one.field, one.detail) for one in found.errors] == [
        (index, error.reason, error.field, error.detail) for index, one in enumerate(alone) for error in one.errors
    ]


def test_each_good_event_is_good_and_each_bad_one_bad() -> None:
    assert judge(GOOD, [0, 1, 2], admission=ADMISSION, now=NOW, settings=SETTINGS).records == {
        index: Record("ü".encode(), one) for index, one in enumerate(GOOD)
    }
    assert len(judge(BAD, range(len(BAD)), admission=ADMISSION, now=NOW, settings=SETTINGS).errors) == len(BAD)
