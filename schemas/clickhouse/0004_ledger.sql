-- positions is the ledger: each batch of the log is written here last, once everything in it is durable.
CREATE TABLE IF NOT EXISTS positions
(
    epoch           LowCardinality(String) COMMENT 'Which log: Kafka cluster id and topic id',
    topic           LowCardinality(String) COMMENT 'Kafka topic',
    partition       UInt32                 COMMENT 'Partition of the log',
    first           UInt64                 COMMENT 'First offset of the batch, inclusive',
    last            UInt64                 COMMENT 'Last offset of the batch, inclusive',
    accepted        UInt64                 COMMENT 'Events stored and folded',
    duplicate       UInt64                 COMMENT 'Events whose identity was accepted at an earlier offset',
    rejected        UInt64                 COMMENT 'Records that went to the dead letters',
    absent          UInt64                 COMMENT 'Offsets at which Kafka holds no record; 0 with our own producers',
    digest          UInt128                COMMENT 'Sum modulo 2^128 of the digests of the accepted events',
    catalog_version UInt32                 COMMENT 'Catalog the batch was decided with',
    logged_at_last  DateTime64(3, 'UTC')   COMMENT 'When Kafka wrote the last record down, UTC',
    flushed_at      DateTime64(3, 'UTC')   COMMENT 'When the worker wrote this row, UTC',
    worker          LowCardinality(String) COMMENT 'Which worker process wrote it',
    code_version    LowCardinality(String) COMMENT 'Version of the code that decided'
)
ENGINE = ReplacingMergeTree
ORDER BY (epoch, partition, first, last)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'Ledger of folded batches: every offset of the log is in exactly one';

CREATE TABLE IF NOT EXISTS dead_letters
(
    epoch           LowCardinality(String) COMMENT 'Which log: Kafka cluster id and topic id',
    topic           LowCardinality(String) COMMENT 'Kafka topic the record came from',
    partition       UInt32                 COMMENT 'Partition of the log',
    offset          UInt64                 COMMENT 'Offset in the partition',
    reason          LowCardinality(String) COMMENT 'Why it was rejected: a word of docs/events.md',
    field           String                 COMMENT 'Dotted path of the field the reason is about, or empty',
    detail          String                 COMMENT 'What was found and what was expected',
    key             String                 COMMENT 'The record''s key, byte for byte',
    raw             String                 COMMENT 'The record, byte for byte' CODEC(ZSTD(3)),
    logged_at       DateTime64(3, 'UTC')   COMMENT 'When Kafka wrote the record down, UTC',
    catalog_version UInt32                 COMMENT 'Catalog the record was decided with'
)
ENGINE = ReplacingMergeTree
PARTITION BY toYYYYMM(logged_at)
ORDER BY (epoch, partition, offset)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'Records that could not be billed on, kept whole; read with FINAL';
