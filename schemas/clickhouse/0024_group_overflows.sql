-- Which values a subject's day keeps of a dimension that had more than its meter takes; what came later is counted under
-- `other`. The row with the least position counts: a worker that begins again says the same set with a later one.
CREATE TABLE IF NOT EXISTS group_overflows
(
    meter          LowCardinality(String) COMMENT 'Meter name',
    subject        String                 COMMENT 'Subject of the events',
    day            Date                   COMMENT 'Day of the events'' times, UTC',
    meter_version  UInt32                 COMMENT 'Version of the meter that measured',
    epoch          LowCardinality(String) COMMENT 'Which log: Kafka cluster id and topic id',
    partition      UInt32                 COMMENT 'Partition of the log',
    position_first UInt64                 COMMENT 'First offset that the series of rollups covers',
    dimension      LowCardinality(String) COMMENT 'Name of the dimension in group_by',
    position_end   UInt64                 COMMENT 'Offset at which the series ends, exclusive; 2^64 - 1 while it goes on',
    position       UInt64                 COMMENT 'Offset of the first event with a value too many',
    rank           UInt64                 COMMENT '2^64 - 1 minus position: of two rows the first place in the log counts',
    kept           Array(String)          COMMENT 'The values that are told apart, sorted; `other` is one of them'
)
ENGINE = ReplacingMergeTree(rank)
PARTITION BY toYear(day)
ORDER BY (meter, subject, day, meter_version, epoch, partition, position_first, dimension)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'Days that had more values of a dimension than the meter takes; read with FINAL';

CREATE OR REPLACE VIEW usage_other
(
    day          Date                   COMMENT 'Day of the events'' times, UTC',
    meter        LowCardinality(String) COMMENT 'Meter name',
    dimension    LowCardinality(String) COMMENT 'Name of the dimension in group_by',
    subject      String                 COMMENT 'Subject of the events',
    customer     String                 COMMENT 'Customer the subject belongs to now; empty when to none',
    values_kept  UInt64                 COMMENT 'Values that are told apart on that day',
    events_other UInt64                 COMMENT 'Events of the meter that are counted under `other` in this dimension, on that day'
)
AS SELECT full.day AS day, full.meter AS meter, full.dimension AS dimension, full.subject AS subject, owner.customer AS customer,
    full.values_kept AS values_kept, counted.events_other AS events_other
FROM
(
    SELECT day, meter, dimension, subject, uniqExact(value) - 1 AS values_kept
    FROM (SELECT day, meter, dimension, subject, arrayJoin(kept) AS value FROM group_overflows FINAL)
    GROUP BY day, meter, dimension, subject
) AS full
LEFT JOIN
(
    SELECT day, meter, dimension, subject, sum(events_count) AS events_other
    FROM
    (
        SELECT toDate(window_start) AS day, meter, subject, events_count, arrayJoin(mapKeys(mapFilter((name, value) -> value = 'other', dimensions))) AS dimension
        FROM rollups FINAL
        WHERE (meter, subject, toDate(window_start)) IN (SELECT meter, subject, day FROM group_overflows)
    )
    GROUP BY day, meter, dimension, subject
) AS counted ON counted.day = full.day AND counted.meter = full.meter AND counted.dimension = full.dimension AND counted.subject = full.subject
LEFT JOIN (SELECT subject, customer FROM subjects FINAL WHERE active) AS owner ON owner.subject = full.subject
COMMENT 'Usage that is counted under other because a day had more values than its meter takes';
