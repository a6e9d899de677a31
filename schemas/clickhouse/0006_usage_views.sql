-- What analysts read. Everything here is computed when it is asked for, from rollups, members and the newest catalog;
-- nothing has to be kept up to date, and nothing can be counted twice.
--
-- A meter's versions stand in the catalog itself, so that no second table can disagree with it.
CREATE VIEW IF NOT EXISTS meter_versions
(
    meter           String                  COMMENT 'Meter name',
    meter_version   UInt32                  COMMENT 'Number of the version, counted from 1',
    aggregation     LowCardinality(String)  COMMENT 'count, sum, min, max, avg, latest or unique_count',
    unit            LowCardinality(String)  COMMENT 'Unit of the quantity, as the catalog writes it',
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

-- Rollups and members side by side, each with its owner and the day it belongs to: group by any columns and apply
-- the expression of `quantity` below. A day is a date on the clocks of the customer's zone.
CREATE VIEW IF NOT EXISTS usage_parts
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
    part.member AS member
FROM
(
    SELECT meter, subject, window_start, dimensions, meter_version, epoch, partition, events_count, value_sum,
        value_min, value_max, value_latest, latest_time, latest_offset, CAST(NULL, 'Nullable(String)') AS member
    FROM rollups FINAL
    UNION ALL
    SELECT meter, subject, window_start, dimensions, meter_version, epoch, partition, 0, 0,
        NULL, NULL, NULL, toDateTime64(0, 6, 'UTC'), 0, CAST(member, 'Nullable(String)')
    FROM members FINAL
) AS part
INNER JOIN meter_versions AS version ON part.meter = version.meter AND part.meter_version = version.meter_version
LEFT ANY JOIN (SELECT subject, customer, customer_name, timezone FROM subjects FINAL WHERE active = 1) AS owner
    ON part.subject = owner.subject
WHERE (version.in_force_from IS NULL OR part.window_start >= version.in_force_from)
    AND (version.in_force_to IS NULL OR part.window_start < version.in_force_to)
COMMENT 'Rollups and members of the meter versions in force: what usage_15m, usage_daily and usage_monthly add up';

CREATE VIEW IF NOT EXISTS usage_15m
(
    subject         String                  COMMENT 'Subject of the events',
    customer        String                  COMMENT 'Customer the subject belongs to now; empty when to none',
    customer_name   String                  COMMENT 'Name on the invoice; empty when the subject has no customer',
    timezone        LowCardinality(String)  COMMENT 'IANA zone of the customer; UTC when the subject has no customer',
    meter           LowCardinality(String)  COMMENT 'Meter name',
    aggregation     LowCardinality(String)  COMMENT 'count, sum, min, max, avg, latest or unique_count',
    unit            LowCardinality(String)  COMMENT 'Unit of the quantity',
    dimensions      Map(LowCardinality(String), String) COMMENT 'Group-by values by name: dimensions[''region'']',
    window_start    DateTime('UTC')         COMMENT 'Start of the 15-minute window, UTC, inclusive',
    quantity        Nullable(Decimal(76, 12)) COMMENT 'The number the meter shows for the window; of unique_count the distinct members, of avg 12 decimals, half up',
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
    GROUP BY subject, customer, customer_name, timezone, meter, aggregation, unit, dimensions, window_start
    HAVING events > 0
)
COMMENT 'Usage per subject, dimensions and 15 minutes. Days and months of avg, unique_count, min, max and latest are no sums of these: use usage_daily and usage_monthly';

CREATE VIEW IF NOT EXISTS usage_daily
(
    subject         String                  COMMENT 'Subject of the events',
    customer        String                  COMMENT 'Customer the subject belongs to now; empty when to none',
    customer_name   String                  COMMENT 'Name on the invoice; empty when the subject has no customer',
    timezone        LowCardinality(String)  COMMENT 'IANA zone whose clocks decide the day; UTC when the subject has no customer',
    meter           LowCardinality(String)  COMMENT 'Meter name',
    aggregation     LowCardinality(String)  COMMENT 'count, sum, min, max, avg, latest or unique_count',
    unit            LowCardinality(String)  COMMENT 'Unit of the quantity',
    dimensions      Map(LowCardinality(String), String) COMMENT 'Group-by values by name: dimensions[''region'']',
    day             Date                    COMMENT 'Day on the clocks of timezone',
    quantity        Nullable(Decimal(76, 12)) COMMENT 'The number the meter shows for the day; of unique_count the distinct members, of avg 12 decimals, half up',
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
    GROUP BY subject, customer, customer_name, timezone, meter, aggregation, unit, dimensions, day
    HAVING events > 0
)
COMMENT 'Usage per subject, dimensions and day of the customer, 23 and 25 hour days included';

CREATE VIEW IF NOT EXISTS usage_monthly
(
    subject         String                  COMMENT 'Subject of the events',
    customer        String                  COMMENT 'Customer the subject belongs to now; empty when to none',
    customer_name   String                  COMMENT 'Name on the invoice; empty when the subject has no customer',
    timezone        LowCardinality(String)  COMMENT 'IANA zone whose clocks decide the month; UTC when the subject has no customer',
    meter           LowCardinality(String)  COMMENT 'Meter name',
    aggregation     LowCardinality(String)  COMMENT 'count, sum, min, max, avg, latest or unique_count',
    unit            LowCardinality(String)  COMMENT 'Unit of the quantity',
    dimensions      Map(LowCardinality(String), String) COMMENT 'Group-by values by name: dimensions[''region'']',
    month           Date                    COMMENT 'First day of the month on the clocks of timezone',
    quantity        Nullable(Decimal(76, 12)) COMMENT 'The number the meter shows for the month; of unique_count the distinct members, of avg 12 decimals, half up',
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
    GROUP BY subject, customer, customer_name, timezone, meter, aggregation, unit, dimensions, month
    HAVING events > 0
)
COMMENT 'Usage per subject, dimensions and month of the customer';
