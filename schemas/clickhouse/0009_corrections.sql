-- Which events no longer count, and from which place of the log on. A row says that a correcting event takes another
-- out: the one it names, and every earlier correction of the same. The correcting event itself stands in events.
-- As of a cut an event counts unless a row takes it out at a place within the cut.
CREATE TABLE IF NOT EXISTS corrections
(
    subject           String                 COMMENT 'Subject of both events',
    source            LowCardinality(String) COMMENT 'CloudEvents source of the event that is taken out',
    id                String                 COMMENT 'CloudEvents id of the event that is taken out',
    epoch             LowCardinality(String) COMMENT 'Log of the correction: Kafka cluster id and topic id',
    partition         UInt32                 COMMENT 'Partition of the correction',
    offset            UInt64                 COMMENT 'Offset of the correction',
    correction_source LowCardinality(String) COMMENT 'CloudEvents source of the correction',
    correction_id     String                 COMMENT 'CloudEvents id of the correction',
    kind              LowCardinality(String) COMMENT 'voided or replaced',
    is_named          UInt8                  COMMENT '1 when the correction names the event; 0 when the event is an earlier correction of what it names',
    logged_at         DateTime64(3, 'UTC')   COMMENT 'When Kafka wrote the correction down, UTC',
    event_known       UInt8                  COMMENT '1 once the event that is taken out was accepted; the columns below say nothing before',
    event_type        LowCardinality(String) COMMENT 'CloudEvents type of the event that is taken out',
    event_time        DateTime64(6, 'UTC')   COMMENT 'When it was used, UTC',
    event_epoch       LowCardinality(String) COMMENT 'Log of the event that is taken out',
    event_partition   UInt32                 COMMENT 'Partition of the event that is taken out',
    event_offset      UInt64                 COMMENT 'Offset of the event that is taken out'
)
ENGINE = ReplacingMergeTree(event_known)
ORDER BY (subject, source, id, epoch, partition, offset)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'Events that corrections have taken out; read with FINAL';

ALTER TABLE rollups
    ADD COLUMN IF NOT EXISTS value_moment Decimal(76, 18)
    COMMENT 'Sum of value times seconds since window_start; 0 unless the meter is time_weighted';

-- Members come and go: `since` is 0 in the row of the first event, and the position of the change, plus one, in the row
-- of every later change. Only columns that are new may join a sorting key, and only without a default expression.
ALTER TABLE members
    ADD COLUMN IF NOT EXISTS since UInt64
    COMMENT '0 when the member came for the first time; else 1 plus the position of the change. The greatest counts',
    ADD COLUMN IF NOT EXISTS gone UInt8
    COMMENT '1 when no event brings the member to the key any more',
    MODIFY ORDER BY (meter, subject, window_start, dimensions, meter_version, epoch, partition, position_first, member, since);
