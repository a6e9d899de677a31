-- Where reading a partition stopped because too much of it was rejected, and where somebody let it go on. A partition is
-- paused while its last pause is beyond its last resumption; both are places in the log, so that no clock decides.
CREATE TABLE IF NOT EXISTS partition_pauses
(
    epoch     LowCardinality(String) COMMENT 'Which log: Kafka cluster id and topic id',
    partition UInt32                 COMMENT 'Partition of the log',
    offset    UInt64                 COMMENT 'First offset that was not read: all before it is in the ledger',
    state     LowCardinality(String) COMMENT 'paused, or resumed',
    records   UInt64                 COMMENT 'Of a pause: how many records the worker had looked back on',
    rejected  UInt64                 COMMENT 'Of a pause: how many of these were rejected',
    why       String                 COMMENT 'Of a resumption: what was said about it',
    at        DateTime64(3, 'UTC')   COMMENT 'When, UTC',
    by        String                 COMMENT 'Who: the worker process, or user and machine'
)
ENGINE = ReplacingMergeTree
ORDER BY (epoch, partition, offset, state)
COMMENT 'Partitions paused over dead letters, and resumed; rows are only ever added';
