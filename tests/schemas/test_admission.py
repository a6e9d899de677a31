from datetime import UTC, datetime
from decimal import Decimal

import pytest

from schemas.admission import Admission, check_time
from schemas.errors import EventRejectedError
from schemas.meter import Aggregation, Filter, Measurement, Meter, MeterVersion
from schemas.usage_event import UsageEvent, decode_event

JUNE = datetime(2013, 6, 1, tzinfo=UTC)
JULY = datetime(2013, 7, 1, tzinfo=UTC)


def flight(
    *, time: str = "2013-05-31T23:59:59.999999Z", data: str = '{"distance": 1400, "origin": "JFK"}'
) -> UsageEvent:
    record = (
        f'{{"specversion":"1.0","id":"1","source":"s","type":"flight","subject":"UA","time":"{time}","data":{data}}}'
    )
    return decode_event(record.encode())


def version(
    meter: Meter, *, number: int = 1, start: datetime | None = None, end: datetime | None = None
) -> MeterVersion:
    return MeterVersion(meter=meter, version=number, introduced_in=number, start=start, end=end)


FLIGHTS = Meter(name="flights", event_type="flight", aggregation=Aggregation.COUNT, group_by={"origin": "origin"})
MILES = Meter(name="miles", event_type="flight", aggregation=Aggregation.SUM, value="distance")
AIR_MINUTES = Meter(name="miles", event_type="flight", aggregation=Aggregation.SUM, value="air_time")


def test_every_meter_of_the_type_measures_the_event() -> None:
    admission = Admission([version(FLIGHTS), version(MILES)], [])

    measured = admission.measurements(flight())

    assert [(one.meter.name, seen) for one, seen in measured] == [
        ("flights", Measurement(("JFK",), Decimal(0), "")),
        ("miles", Measurement((), Decimal(1400), "")),
    ]


@pytest.mark.parametrize(
    ("time", "numbers"),
    [
        ("2013-05-31T23:59:59.999999Z", [1]),
        ("2013-06-01T00:00:00Z", [2]),
        ("2013-06-30T23:59:59.999999Z", [2]),
        ("2013-07-01T00:00:00Z", []),
    ],
)
def test_the_version_in_force_at_the_events_time_measures_it(time: str, numbers: list[int]) -> None:
    admission = Admission([version(MILES, end=JUNE), version(AIR_MINUTES, number=2, start=JUNE, end=JULY)], ["flight"])

    measured = admission.measurements(flight(time=time, data='{"distance": 1, "air_time": 2}'))

    assert [one.version for one, _ in measured] == numbers
    assert [seen.value for _, seen in measured] == [Decimal(number) for number in numbers]


def test_a_value_is_judged_only_by_the_version_in_force() -> None:
    admission = Admission([version(MILES, end=JUNE), version(AIR_MINUTES, number=2, start=JUNE)], [])
    data = '{"distance": "far", "air_time": 2}'

    assert len(admission.measurements(flight(time="2013-06-01T00:00:00Z", data=data))) == 1
    with pytest.raises(EventRejectedError) as caught:
        admission.admit(flight(time="2013-05-31T00:00:00Z", data=data))
    assert (caught.value.reason, caught.value.field) == ("invalid_number", "data.distance")


def test_one_bad_value_rejects_the_event_for_every_meter() -> None:
    admission = Admission([version(FLIGHTS), version(MILES)], [])

    with pytest.raises(EventRejectedError) as caught:
        admission.admit(flight(data='{"distance": 0.1234567890123, "origin": "JFK"}'))

    assert (caught.value.reason, caught.value.field) == ("number_out_of_range", "data.distance")


def test_a_listed_type_is_known_before_any_meter_reads_it() -> None:
    assert Admission([], ["flight"]).measurements(flight()) == []


def test_a_type_nobody_listed_is_unknown() -> None:
    with pytest.raises(EventRejectedError) as caught:
        Admission([version(MILES)], ["other"]).admit(
            decode_event(
                b'{"specversion":"1.0","id":"1","source":"s","type":"fligth","subject":"U","time":"2013-01-01T00:00:00Z"}'
            )
        )
    assert (caught.value.reason, caught.value.field) == ("unknown_type", "type")


def test_a_filtered_event_is_admitted_and_not_measured() -> None:
    only_lga = Meter(
        name="lga",
        event_type="flight",
        aggregation=Aggregation.COUNT,
        filters=(Filter(field="origin", any_of=("LGA",)),),
    )

    assert Admission([version(only_lga)], []).measurements(flight()) == []


@pytest.mark.parametrize("data", ["null", "[]", "17", '"text"', '{"distance": null}', '{"other": 1}'])
def test_data_without_the_value_is_admitted_and_not_measured(data: str) -> None:
    assert Admission([version(MILES)], []).measurements(flight(data=data)) == []


@pytest.mark.parametrize("value", ["{}", "[1]", "true", '"NaN"', '"1_000"', '""', "1e400", '"\u0663"'])
def test_a_value_that_is_no_decimal_number_is_rejected(value: str) -> None:
    with pytest.raises(EventRejectedError) as caught:
        Admission([version(MILES)], []).measurements(flight(data=f'{{"distance": {value}}}'))

    assert caught.value.field == "data.distance"
    assert caught.value.reason in {"invalid_number", "number_out_of_range"}


@pytest.mark.parametrize(
    ("logged_at", "age_s_max", "reason"),
    [
        (datetime(2013, 5, 31, 22, 59, 59, 999999, tzinfo=UTC), 0, None),
        (datetime(2013, 5, 31, 22, 59, 59, 999998, tzinfo=UTC), 0, "time_ahead"),
        (datetime(2099, 1, 1, tzinfo=UTC), 0, None),
        (datetime(2013, 6, 1, 0, 0, 59, 999999, tzinfo=UTC), 60, None),
        (datetime(2013, 6, 1, 0, 1, 0, 0, tzinfo=UTC), 60, "time_too_old"),
    ],
)
def test_an_event_may_be_as_far_from_the_log_as_the_settings_say(
    logged_at: datetime, age_s_max: int, reason: str | None
) -> None:
    event = flight(time="2013-05-31T23:59:59.999999Z")

    found = None
    try:
        check_time(event, logged_at, ahead_s_max=3600, age_s_max=age_s_max)
    except EventRejectedError as error:
        found = error.reason

    assert found == reason
