-- How far meters that came later were filled from history. `metering rebuild` writes it; `metering close` asks it.
CREATE TABLE IF NOT EXISTS meter_fills
(
    meter         LowCardinality(String) COMMENT 'Meter name',
    meter_version UInt32                 COMMENT 'Version of the meter',
    epoch         LowCardinality(String) COMMENT 'Which log: Kafka cluster id and topic id',
    partition     UInt32                 COMMENT 'Partition of the log',
    until         UInt64                 COMMENT 'First offset that the filled series does not cover',
    filled_at     DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When, UTC'
)
ENGINE = ReplacingMergeTree(until)
ORDER BY (meter, meter_version, epoch, partition)
COMMENT 'Offsets that a rebuild has filled meters with, from 0 on; read with FINAL';
