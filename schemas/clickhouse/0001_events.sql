-- Every accepted event, as it stood in the log. The source of rebuilds, verification and disputes.
-- Sorted by identity, so that a repeat stands beside the first; a row is one record of the log, and writing it
-- again changes nothing: read with FINAL.
CREATE TABLE IF NOT EXISTS events
(
    subject         String                 COMMENT 'Who used it; the Kafka record''s key',
    source          LowCardinality(String) COMMENT 'CloudEvents source: the producer that gave the id',
    id              String                 COMMENT 'CloudEvents id, unique within subject and source',
    type            LowCardinality(String) COMMENT 'CloudEvents type, which meters select on',
    time            DateTime64(6, 'UTC')   COMMENT 'When it was used, UTC',
    epoch           LowCardinality(String) COMMENT 'Which log: Kafka cluster id and topic id',
    partition       UInt32                 COMMENT 'Partition of the log',
    offset          UInt64                 COMMENT 'Offset in the partition',
    logged_at       DateTime64(3, 'UTC')   COMMENT 'When Kafka wrote the record down, UTC',
    digest          UInt128                COMMENT 'First 128 bits of SHA-256 of raw, little-endian',
    raw             String                 COMMENT 'The record, byte for byte' CODEC(ZSTD(3)),
    INDEX time_range time TYPE minmax GRANULARITY 1,
    INDEX offset_range offset TYPE minmax GRANULARITY 1
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(logged_at)
ORDER BY (subject, source, id, epoch, partition, offset)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'Accepted usage events, one row a log record; read with FINAL';
