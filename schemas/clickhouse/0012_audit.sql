-- Who did what. Rows are only ever added; nothing here is read to decide anything.
CREATE TABLE IF NOT EXISTS audit_log
(
    at     DateTime64(3, 'UTC')   COMMENT 'When, UTC',
    by     String                 COMMENT 'Who: user and machine, or an API key',
    action LowCardinality(String) COMMENT 'What was done, such as key.created',
    object String                 COMMENT 'To what: a key, a catalog version, a run, a dead letter, a customer',
    detail String                 COMMENT 'More about it, one JSON object; never a secret, never personal data' CODEC(ZSTD(3)),
    id     UUID                   COMMENT 'Names the entry, so that one that was written twice is seen to be one'
)
ENGINE = ReplacingMergeTree
PARTITION BY toYear(at)
ORDER BY (at, action, object, id)
COMMENT 'Who did what with catalog, keys, runs, dead letters and erasures';

-- What became of a dead letter. A letter without a row here is open; of several rows the newest counts.
CREATE TABLE IF NOT EXISTS dead_letter_states
(
    epoch          LowCardinality(String) COMMENT 'Which log the letter is from',
    topic          LowCardinality(String) COMMENT 'Kafka topic the record came from',
    partition      UInt32                 COMMENT 'Partition of the log',
    offset         UInt64                 COMMENT 'Offset in the partition',
    state          LowCardinality(String) COMMENT 'replayed, or discarded',
    why            String                 COMMENT 'What was said about it',
    sent_epoch     LowCardinality(String) COMMENT 'For a replayed one: the log it was sent to again',
    sent_partition UInt32                 COMMENT 'For a replayed one: its partition now',
    sent_offset    UInt64                 COMMENT 'For a replayed one: its offset now',
    at             DateTime64(3, 'UTC')   COMMENT 'When, UTC',
    by             String                 COMMENT 'Who: user and machine'
)
ENGINE = MergeTree
ORDER BY (epoch, topic, partition, offset, at)
COMMENT 'What became of dead letters; those not in here are open';
