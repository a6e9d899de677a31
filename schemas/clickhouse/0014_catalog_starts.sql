-- Where on each partition folding with a catalog version began. The insert token makes a number a claim: of two workers
-- that hold one partition and take a catalog up at two offsets, one wins and the other ends before it has written a row.
CREATE TABLE IF NOT EXISTS catalog_starts
(
    epoch           LowCardinality(String) COMMENT 'Which log: Kafka cluster id and topic id',
    partition       UInt32                 COMMENT 'Partition of the log',
    number          UInt32                 COMMENT 'Counts the starts of the partition, from 1',
    catalog_version UInt32                 COMMENT 'Catalog version that was taken up',
    first           UInt64                 COMMENT 'First offset decided with it; everything before is in the ledger',
    claimed_at      DateTime64(3, 'UTC')   COMMENT 'When the worker claimed it, UTC',
    worker          LowCardinality(String) COMMENT 'Which worker process claimed it'
)
ENGINE = MergeTree
ORDER BY (epoch, partition, number)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'First offset of each catalog version on each partition; the series of the meters it brought begin there';
