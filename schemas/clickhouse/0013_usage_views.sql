-- The views once more, now that members may go, all events of a window may be taken out, and balances are weighted by
-- time. A row of rollups without events says nothing; of a member the row with the greatest `since` counts.
--
CREATE OR REPLACE VIEW meter_versions
(
    meter           String                  COMMENT 'Meter name',
    meter_version   UInt32                  COMMENT 'Number of the version, counted from 1',
    aggregation     LowCardinality(String)  COMMENT 'count, sum, min, max, avg, latest, unique_count or time_weighted',
    unit            LowCardinality(String)  COMMENT 'Unit of the quantity, as the catalog writes it',
    time_unit_s     UInt32                  COMMENT 'Of time_weighted: the seconds in the unit of time that a balance is multiplied with',
    event_type      String                  COMMENT 'CloudEvents type that the version reads',
    in_force_from   Nullable(DateTime('UTC')) COMMENT 'First rollup window that the version measures, UTC; NULL: always',
    in_force_to     Nullable(DateTime('UTC')) COMMENT 'Where the next version takes over, UTC, exclusive; NULL: never',
    introduced_in   UInt32                  COMMENT 'Catalog version that brought it',
    catalog_version UInt32                  COMMENT 'Catalog version that says so: the newest'
)
AS SELECT
    JSONExtractString(one, 'meter', 'name') AS meter,
    JSONExtractUInt(one, 'version') AS meter_version,
    JSONExtractString(one, 'meter', 'aggregation') AS aggregation,
    JSONExtractString(one, 'meter', 'unit') AS unit,
    toUInt32(transform(JSONExtractString(one, 'meter', 'time_unit'), ['second', 'minute', 'day'], [1, 60, 86400], 3600)) AS time_unit_s,
    JSONExtractString(one, 'meter', 'event_type') AS event_type,
    parseDateTimeBestEffortOrNull(JSONExtractString(one, 'start'), 'UTC') AS in_force_from,
    parseDateTimeBestEffortOrNull(JSONExtractString(one, 'end'), 'UTC') AS in_force_to,
    JSONExtractUInt(one, 'introduced_in') AS introduced_in,
    catalog_version
FROM
(
    SELECT version AS catalog_version, arrayJoin(JSONExtractArrayRaw(document, 'meter_versions')) AS one
    FROM (SELECT version, document FROM catalog_versions ORDER BY version DESC LIMIT 1)
)
COMMENT 'Every version of every meter, and when it is in force';

-- Rollups and members side by side, each with its owner and the day it belongs to.
CREATE OR REPLACE VIEW usage_parts
(
    subject         String                  COMMENT 'Subject of the events',
    customer        String                  COMMENT 'Customer the subject belongs to now; empty when to none',
    customer_name   String                  COMMENT 'Name on the invoice; empty when the subject has no customer',
    timezone        LowCardinality(String)  COMMENT 'IANA zone of the customer; UTC when the subject has no customer',
    meter           LowCardinality(String)  COMMENT 'Meter name',
    aggregation     LowCardinality(String)  COMMENT 'How the meter makes one number of its events, at this time',
    unit            LowCardinality(String)  COMMENT 'Unit of the quantity',
    dimensions      Map(LowCardinality(String), String) COMMENT 'Group-by values by name',
    window_start    DateTime('UTC')         COMMENT 'Start of the 15-minute window, UTC, inclusive',
    day             Date                    COMMENT 'Date on the clocks of timezone when the window begins',
    epoch           LowCardinality(String)  COMMENT 'Which log: Kafka cluster id and topic id',
    partition       UInt32                  COMMENT 'Partition of the log',
    events_count    UInt64                  COMMENT 'Events measured; 0 in the row of a member',
    value_sum       Decimal(76, 12)         COMMENT 'Sum of the values; 0 in the row of a member',
    value_min       Nullable(Decimal(38, 12)) COMMENT 'Smallest value, or NULL',
    value_max       Nullable(Decimal(38, 12)) COMMENT 'Largest value, or NULL',
    value_latest    Nullable(Decimal(38, 12)) COMMENT 'Value of the latest event, or NULL',
    latest_time     DateTime64(6, 'UTC')    COMMENT 'Time of that event',
    latest_offset   UInt64                  COMMENT 'Offset of that event',
    value_moment    Decimal(76, 18)         COMMENT 'Of time_weighted: sum of value times seconds since window_start',
    member          Nullable(String)        COMMENT 'A counted member of a unique_count meter; NULL in the row of a rollup'
)
AS SELECT
    part.subject AS subject,
    owner.customer AS customer,
    owner.customer_name AS customer_name,
    if(owner.timezone = '', 'UTC', owner.timezone) AS timezone,
    part.meter AS meter,
    version.aggregation AS aggregation,
    version.unit AS unit,
    part.dimensions AS dimensions,
    part.window_start AS window_start,
    toDate(substring(toString(part.window_start, if(owner.timezone = '', 'UTC', owner.timezone)), 1, 10)) AS day,
    part.epoch AS epoch,
    part.partition AS partition,
    part.events_count AS events_count,
    part.value_sum AS value_sum,
    part.value_min AS value_min,
    part.value_max AS value_max,
    part.value_latest AS value_latest,
    part.latest_time AS latest_time,
    part.latest_offset AS latest_offset,
    part.value_moment AS value_moment,
    part.member AS member
FROM
(
    SELECT meter, subject, window_start, dimensions, meter_version, epoch, partition, events_count, value_sum,
        value_min, value_max, value_latest, latest_time, latest_offset, value_moment,
        CAST(NULL, 'Nullable(String)') AS member
    FROM rollups FINAL WHERE events_count > 0
    UNION ALL
    SELECT meter, subject, window_start, dimensions, meter_version, epoch, partition, 0, 0,
        NULL, NULL, NULL, toDateTime64(0, 6, 'UTC'), 0, 0, CAST(member, 'Nullable(String)')
    FROM members
    GROUP BY meter, subject, window_start, dimensions, meter_version, epoch, partition, position_first, member
    HAVING argMax(gone, since) = 0
) AS part
INNER JOIN meter_versions AS version ON part.meter = version.meter AND part.meter_version = version.meter_version
LEFT ANY JOIN (SELECT subject, customer, customer_name, timezone FROM subjects FINAL WHERE active = 1) AS owner
    ON part.subject = owner.subject
WHERE (version.in_force_from IS NULL OR part.window_start >= version.in_force_from)
    AND (version.in_force_to IS NULL OR part.window_start < version.in_force_to)
COMMENT 'Rollups and members of the meter versions in force: what usage_15m, usage_daily and usage_monthly add up';

-- A balance lasts until its next change, so a time_weighted meter has days without events. Each is integrated over the
-- seconds between the midnights of the customer's zone; today counts whole, as if the balance lasted until midnight.
CREATE OR REPLACE VIEW balance_days
(
    subject         String                  COMMENT 'Subject of the events',
    customer        String                  COMMENT 'Customer the subject belongs to now; empty when to none',
    customer_name   String                  COMMENT 'Name on the invoice; empty when the subject has no customer',
    timezone        LowCardinality(String)  COMMENT 'IANA zone whose clocks decide the day; UTC when the subject has no customer',
    meter           LowCardinality(String)  COMMENT 'Meter name',
    unit            LowCardinality(String)  COMMENT 'Unit of the quantity',
    time_unit_s     UInt32                  COMMENT 'Seconds in the unit of time that a balance is multiplied with',
    dimensions      Map(LowCardinality(String), String) COMMENT 'Group-by values by name: dimensions[''region'']',
    day             Date                    COMMENT 'Day on the clocks of timezone, until today',
    balance         Decimal(76, 12)         COMMENT 'Balance when the day begins',
    unit_seconds    Decimal(76, 18)         COMMENT 'Balance times seconds, over the day',
    events_count    UInt64                  COMMENT 'Changes on the day'
)
AS SELECT
    here.subject AS subject, here.customer AS customer, here.customer_name AS customer_name, here.timezone AS timezone,
    here.meter AS meter, version.unit AS unit, version.time_unit_s AS time_unit_s, here.dimensions AS dimensions,
    here.day AS day, here.balance AS balance,
    here.balance * (here.ends_at - here.starts_at)
        + if(here.ahead = 0, here.change * here.ends_at - here.first_moment, toDecimal256(0, 18)) AS unit_seconds,
    if(here.ahead = 0, here.events, 0) AS events_count
FROM
(
    SELECT subject, customer, customer_name, timezone, meter, dimensions, change, first_moment, events,
        arrayJoin(range(toUInt32(days_count))) AS ahead,
        changed_on + ahead AS day,
        if(ahead = 0, balance_before, balance_before + change) AS balance,
        arrayMap(date -> arrayFirst(
                at -> toDate(substring(toString(toDateTime(at, 'UTC'), timezone), 1, 10)) = date,
                arraySort(arrayMap(
                    near -> 2 * toInt64(toUnixTimestamp(toDateTime(date, 'UTC'))) + near
                        - toInt64(toUnixTimestamp(toDateTime(toString(
                            toDateTime(toInt64(toUnixTimestamp(toDateTime(date, 'UTC'))) + near, 'UTC'), timezone), 'UTC'))),
                    [toInt64(-93600), toInt64(93600)]))),
            [day, day + 1]) AS midnights,
        midnights[1] AS starts_at, midnights[2] AS ends_at
    FROM
    (
        SELECT subject, customer, customer_name, timezone, meter, dimensions, changed_on, change, first_moment, events,
            sum(change) OVER (PARTITION BY subject, meter, dimensions ORDER BY changed_on) - change AS balance_before,
            any(changed_on) OVER (PARTITION BY subject, meter, dimensions ORDER BY changed_on
                ROWS BETWEEN 1 FOLLOWING AND 1 FOLLOWING) AS next_on,
            toDate(substring(toString(now('UTC'), timezone), 1, 10)) AS today,
            multiIf(balance_before + change = 0, 1, next_on > changed_on, next_on - changed_on,
                greatest(today, changed_on) - changed_on + 1) AS days_count
        FROM
        (
            SELECT subject, customer, customer_name, timezone, meter, dimensions, day AS changed_on,
                sum(value_sum) AS change,
                sum(value_moment + value_sum * toUnixTimestamp(window_start)) AS first_moment,
                sumIf(events_count, aggregation = 'time_weighted') AS events
            FROM usage_parts
            WHERE member IS NULL AND aggregation IN ('time_weighted', 'sum')
                AND meter IN (SELECT meter FROM meter_versions WHERE aggregation = 'time_weighted')
            GROUP BY subject, customer, customer_name, timezone, meter, dimensions, changed_on
        )
    )
) AS here
INNER JOIN meter_versions AS version ON here.meter = version.meter
WHERE version.aggregation = 'time_weighted' AND (here.ahead = 0 OR here.balance != 0)
    AND (version.in_force_from IS NULL OR toUnixTimestamp(version.in_force_from) < here.ends_at)
    AND (version.in_force_to IS NULL OR toUnixTimestamp(version.in_force_to) >= here.ends_at)
COMMENT 'Balances of time_weighted meters, day by day: what usage_daily and usage_monthly add up';

CREATE OR REPLACE VIEW usage_15m
(
    subject         String                  COMMENT 'Subject of the events',
    customer        String                  COMMENT 'Customer the subject belongs to now; empty when to none',
    customer_name   String                  COMMENT 'Name on the invoice; empty when the subject has no customer',
    timezone        LowCardinality(String)  COMMENT 'IANA zone of the customer; UTC when the subject has no customer',
    meter           LowCardinality(String)  COMMENT 'Meter name',
    aggregation     LowCardinality(String)  COMMENT 'count, sum, min, max, avg, latest, unique_count or time_weighted',
    unit            LowCardinality(String)  COMMENT 'Unit of the quantity',
    dimensions      Map(LowCardinality(String), String) COMMENT 'Group-by values by name: dimensions[''region'']',
    window_start    DateTime('UTC')         COMMENT 'Start of the 15-minute window, UTC, inclusive',
    quantity        Nullable(Decimal(76, 12)) COMMENT 'The number the meter shows for the window; of unique_count the distinct members, of avg 12 decimals, half up; of time_weighted 12 decimals, half even',
    events_count    UInt64                  COMMENT 'Events measured'
)
AS SELECT
    subject, customer, customer_name, timezone, meter, aggregation, unit, dimensions, window_start,
    multiIf(
        aggregation = 'count', toDecimal256(events, 12),
        aggregation = 'unique_count', toDecimal256(members, 12),
        aggregation = 'sum', total,
        aggregation = 'min', smallest,
        aggregation = 'max', greatest,
        aggregation = 'latest', latest,
        aggregation = 'avg', toDecimal256(
            if(total < 0, -1, 1) * intDiv(
                2 * toInt256(abs(total) * toDecimal256('1000000000000', 0)) + toInt256(events),
                2 * toInt256(events)),
            12) / 1000000000000,
        NULL) AS quantity,
    events AS events_count
FROM
(
    SELECT subject, customer, customer_name, timezone, meter, aggregation, unit, dimensions, window_start,
        sum(events_count) AS events,
        sum(value_sum) AS total,
        min(value_min) AS smallest,
        max(value_max) AS greatest,
        argMax(value_latest, (latest_time, epoch, partition, latest_offset)) AS latest,
        uniqExact(member) AS members
    FROM usage_parts
    WHERE aggregation != 'time_weighted'
    GROUP BY subject, customer, customer_name, timezone, meter, aggregation, unit, dimensions, window_start
    HAVING events > 0
)
UNION ALL
SELECT
    subject, customer, customer_name, timezone, meter, 'time_weighted' AS aggregation, unit, dimensions, window_start,
    toDecimal256(whole + if(2 * rest > unit_whole OR (2 * rest = unit_whole AND whole % 2 != 0), 1, 0), 12)
        / 1000000000000 AS quantity,
    events_count
FROM
(
    SELECT subject, customer, customer_name, timezone, meter, unit, dimensions, window_start, events_count,
        toInt256(unit_seconds * toDecimal256('1000000000000000000', 0)) AS exact,
            toInt256(time_unit_s) * 1000000 AS unit_whole,
            exact - positiveModulo(exact, unit_whole) AS even_part,
            intDiv(even_part, unit_whole) AS whole, exact - even_part AS rest
    FROM
    (
        SELECT subject, customer, customer_name, timezone, meter, unit, dimensions, window_start, events_count,
            balance * 900 + change * (toUnixTimestamp(window_start) + 900) - first_moment AS unit_seconds, time_unit_s
        FROM
        (
            SELECT subject, customer, customer_name, timezone, meter, unit, dimensions, window_start, change,
                first_moment, events_count, is_weighted, time_unit_s,
                sum(change) OVER (PARTITION BY subject, meter, dimensions ORDER BY window_start) - change AS balance
            FROM
            (
                SELECT subject, customer, customer_name, timezone, meter, any(part.unit) AS unit, dimensions,
                    window_start, sum(value_sum) AS change,
                    sum(value_moment + value_sum * toUnixTimestamp(window_start)) AS first_moment,
                    sum(events_count) AS events_count, any(part.aggregation = 'time_weighted') AS is_weighted,
                    any(version.time_unit_s) AS time_unit_s
                FROM usage_parts AS part
                INNER JOIN meter_versions AS version ON part.meter = version.meter
                WHERE member IS NULL AND part.aggregation IN ('time_weighted', 'sum')
                    AND meter IN (SELECT meter FROM meter_versions WHERE aggregation = 'time_weighted')
                    AND (version.in_force_from IS NULL OR part.window_start >= version.in_force_from)
                    AND (version.in_force_to IS NULL OR part.window_start < version.in_force_to)
                GROUP BY subject, customer, customer_name, timezone, meter, dimensions, window_start
            )
        )
        WHERE is_weighted
    )
)
COMMENT 'Usage per subject, dimensions and 15 minutes. Days and months of avg, unique_count, min, max and latest are no sums of these: use usage_daily and usage_monthly. Of time_weighted only windows with a change';

CREATE OR REPLACE VIEW usage_daily
(
    subject         String                  COMMENT 'Subject of the events',
    customer        String                  COMMENT 'Customer the subject belongs to now; empty when to none',
    customer_name   String                  COMMENT 'Name on the invoice; empty when the subject has no customer',
    timezone        LowCardinality(String)  COMMENT 'IANA zone whose clocks decide the day; UTC when the subject has no customer',
    meter           LowCardinality(String)  COMMENT 'Meter name',
    aggregation     LowCardinality(String)  COMMENT 'count, sum, min, max, avg, latest, unique_count or time_weighted',
    unit            LowCardinality(String)  COMMENT 'Unit of the quantity',
    dimensions      Map(LowCardinality(String), String) COMMENT 'Group-by values by name: dimensions[''region'']',
    day             Date                    COMMENT 'Day on the clocks of timezone',
    quantity        Nullable(Decimal(76, 12)) COMMENT 'The number the meter shows for the day; of unique_count the distinct members, of avg 12 decimals, half up; of time_weighted 12 decimals, half even',
    events_count    UInt64                  COMMENT 'Events measured'
)
AS SELECT
    subject, customer, customer_name, timezone, meter, aggregation, unit, dimensions, day,
    multiIf(
        aggregation = 'count', toDecimal256(events, 12),
        aggregation = 'unique_count', toDecimal256(members, 12),
        aggregation = 'sum', total,
        aggregation = 'min', smallest,
        aggregation = 'max', greatest,
        aggregation = 'latest', latest,
        aggregation = 'avg', toDecimal256(
            if(total < 0, -1, 1) * intDiv(
                2 * toInt256(abs(total) * toDecimal256('1000000000000', 0)) + toInt256(events),
                2 * toInt256(events)),
            12) / 1000000000000,
        NULL) AS quantity,
    events AS events_count
FROM
(
    SELECT subject, customer, customer_name, timezone, meter, aggregation, unit, dimensions, day,
        sum(events_count) AS events,
        sum(value_sum) AS total,
        min(value_min) AS smallest,
        max(value_max) AS greatest,
        argMax(value_latest, (latest_time, epoch, partition, latest_offset)) AS latest,
        uniqExact(member) AS members
    FROM usage_parts
    WHERE aggregation != 'time_weighted'
    GROUP BY subject, customer, customer_name, timezone, meter, aggregation, unit, dimensions, day
    HAVING events > 0
)
UNION ALL
SELECT
    subject, customer, customer_name, timezone, meter, 'time_weighted' AS aggregation, unit, dimensions, day,
    toDecimal256(whole + if(2 * rest > unit_whole OR (2 * rest = unit_whole AND whole % 2 != 0), 1, 0), 12)
        / 1000000000000 AS quantity,
    events_count
FROM
(
    SELECT subject, customer, customer_name, timezone, meter, unit, dimensions, day, events_count,
        toInt256(unit_seconds * toDecimal256('1000000000000000000', 0)) AS exact,
            toInt256(time_unit_s) * 1000000 AS unit_whole,
            exact - positiveModulo(exact, unit_whole) AS even_part,
            intDiv(even_part, unit_whole) AS whole, exact - even_part AS rest
    FROM
    (
        SELECT subject, customer, customer_name, timezone, meter, unit, dimensions, day, events_count,
            unit_seconds, time_unit_s
        FROM balance_days
    )
)
COMMENT 'Usage per subject, dimensions and day of the customer, 23 and 25 hour days included';

CREATE OR REPLACE VIEW usage_monthly
(
    subject         String                  COMMENT 'Subject of the events',
    customer        String                  COMMENT 'Customer the subject belongs to now; empty when to none',
    customer_name   String                  COMMENT 'Name on the invoice; empty when the subject has no customer',
    timezone        LowCardinality(String)  COMMENT 'IANA zone whose clocks decide the month; UTC when the subject has no customer',
    meter           LowCardinality(String)  COMMENT 'Meter name',
    aggregation     LowCardinality(String)  COMMENT 'count, sum, min, max, avg, latest, unique_count or time_weighted',
    unit            LowCardinality(String)  COMMENT 'Unit of the quantity',
    dimensions      Map(LowCardinality(String), String) COMMENT 'Group-by values by name: dimensions[''region'']',
    month           Date                    COMMENT 'First day of the month on the clocks of timezone',
    quantity        Nullable(Decimal(76, 12)) COMMENT 'The number the meter shows for the month; of unique_count the distinct members, of avg 12 decimals, half up; of time_weighted 12 decimals, half even',
    events_count    UInt64                  COMMENT 'Events measured'
)
AS SELECT
    subject, customer, customer_name, timezone, meter, aggregation, unit, dimensions, month,
    multiIf(
        aggregation = 'count', toDecimal256(events, 12),
        aggregation = 'unique_count', toDecimal256(members, 12),
        aggregation = 'sum', total,
        aggregation = 'min', smallest,
        aggregation = 'max', greatest,
        aggregation = 'latest', latest,
        aggregation = 'avg', toDecimal256(
            if(total < 0, -1, 1) * intDiv(
                2 * toInt256(abs(total) * toDecimal256('1000000000000', 0)) + toInt256(events),
                2 * toInt256(events)),
            12) / 1000000000000,
        NULL) AS quantity,
    events AS events_count
FROM
(
    SELECT subject, customer, customer_name, timezone, meter, aggregation, unit, dimensions, toStartOfMonth(day) AS month,
        sum(events_count) AS events,
        sum(value_sum) AS total,
        min(value_min) AS smallest,
        max(value_max) AS greatest,
        argMax(value_latest, (latest_time, epoch, partition, latest_offset)) AS latest,
        uniqExact(member) AS members
    FROM usage_parts
    WHERE aggregation != 'time_weighted'
    GROUP BY subject, customer, customer_name, timezone, meter, aggregation, unit, dimensions, month
    HAVING events > 0
)
UNION ALL
SELECT
    subject, customer, customer_name, timezone, meter, 'time_weighted' AS aggregation, unit, dimensions, month,
    toDecimal256(whole + if(2 * rest > unit_whole OR (2 * rest = unit_whole AND whole % 2 != 0), 1, 0), 12)
        / 1000000000000 AS quantity,
    events_count
FROM
(
    SELECT subject, customer, customer_name, timezone, meter, unit, dimensions, month, events_count,
        toInt256(unit_seconds * toDecimal256('1000000000000000000', 0)) AS exact,
            toInt256(time_unit_s) * 1000000 AS unit_whole,
            exact - positiveModulo(exact, unit_whole) AS even_part,
            intDiv(even_part, unit_whole) AS whole, exact - even_part AS rest
    FROM
    (
        SELECT subject, customer, customer_name, timezone, meter, any(unit) AS unit, dimensions,
            toStartOfMonth(day) AS month, sum(events_count) AS events_count, sum(unit_seconds) AS unit_seconds,
            any(time_unit_s) AS time_unit_s
        FROM balance_days
        GROUP BY subject, customer, customer_name, timezone, meter, dimensions, month
    )
)
COMMENT 'Usage per subject, dimensions and month of the customer';
