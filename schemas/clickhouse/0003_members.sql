-- Members of unique_count meters. Counted over the asked range, never summed over windows.
CREATE TABLE IF NOT EXISTS members
(
    meter           LowCardinality(String)  COMMENT 'Meter name',
    subject         String                  COMMENT 'Subject of the events',
    window_start    DateTime('UTC')         COMMENT 'Start of the 15-minute window, UTC, inclusive',
    dimensions      Map(LowCardinality(String), String) COMMENT 'Group-by values by name, sorted by name',
    meter_version   UInt32                  COMMENT 'Version of the meter that measured',
    epoch           LowCardinality(String)  COMMENT 'Which log: Kafka cluster id and topic id',
    partition       UInt32                  COMMENT 'Partition of the log',
    position_first  UInt64                  COMMENT 'First offset that this row''s series covers',
    member          String                  COMMENT 'The counted value, as text',
    position        UInt64                  COMMENT 'Offset of the first event that brought this member to the key'
)
ENGINE = ReplacingMergeTree
PARTITION BY toYear(window_start)
ORDER BY (meter, subject, window_start, dimensions, meter_version, epoch, partition, position_first, member)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'Distinct values seen per rollup key; read with FINAL';
