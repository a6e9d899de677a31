-- A row is the absolute state of its key over the accepted events with offsets from position_first to position.
-- Writing it again, or writing an older state, changes nothing: read with FINAL, then sum over partitions,
-- epochs and position_first.
CREATE TABLE IF NOT EXISTS rollups
(
    meter           LowCardinality(String)  COMMENT 'Meter name',
    subject         String                  COMMENT 'Subject of the events',
    window_start    DateTime('UTC')         COMMENT 'Start of the 15-minute window, UTC, inclusive',
    dimensions      Map(LowCardinality(String), String) COMMENT 'Group-by values by name, sorted by name',
    meter_version   UInt32                  COMMENT 'Version of the meter that measured',
    epoch           LowCardinality(String)  COMMENT 'Which log: Kafka cluster id and topic id',
    partition       UInt32                  COMMENT 'Partition of the log',
    position_first  UInt64                  COMMENT 'First offset that this row''s series covers; 0, or where live folding began',
    position        UInt64                  COMMENT 'Last offset folded into this row',
    events_count    UInt64                  COMMENT 'Events measured',
    value_sum       Decimal(76, 12)         COMMENT 'Sum of the values',
    value_min       Nullable(Decimal(38, 12)) COMMENT 'Smallest value; NULL for count and unique_count',
    value_max       Nullable(Decimal(38, 12)) COMMENT 'Largest value; NULL for count and unique_count',
    value_latest    Nullable(Decimal(38, 12)) COMMENT 'Value of the event with the greatest time, then offset',
    latest_time     DateTime64(6, 'UTC')    COMMENT 'Time of that event',
    latest_offset   UInt64                  COMMENT 'Offset of that event',
    digest          UInt128                 COMMENT 'Sum modulo 2^128 of the events'' digests'
)
ENGINE = ReplacingMergeTree(position)
PARTITION BY toYear(window_start)
ORDER BY (meter, subject, window_start, dimensions, meter_version, epoch, partition, position_first)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'Usage per meter, subject, 15-minute window and dimensions; read with FINAL';
