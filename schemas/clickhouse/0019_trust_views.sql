-- How far an answer can be trusted: what is stored and not yet in the ledger, and what was not counted. Both read tables
-- that analysts may not, with their owner's rights, and hand out counts and times alone.
CREATE OR REPLACE VIEW pipeline_freshness
(
    epoch          LowCardinality(String)         COMMENT 'Which log: Kafka cluster id and topic id',
    partition      UInt32                         COMMENT 'Partition of the log',
    newest_at      DateTime64(3, 'UTC')           COMMENT 'When Kafka wrote down the newest record that is known of, UTC',
    folded_to_at   Nullable(DateTime64(3, 'UTC')) COMMENT 'When Kafka wrote down the last record in the ledger, UTC; NULL: none yet',
    lag_ms         Nullable(Int64)                COMMENT 'How far the ledger is behind the newest event stored, in ms of the log; 0 when it is not',
    offsets_behind UInt64                         COMMENT 'Offsets from the end of the ledger to the newest event stored',
    flushed_at     Nullable(DateTime64(3, 'UTC')) COMMENT 'When the worker wrote the ledger last, UTC',
    accepted       UInt64                         COMMENT 'Events that the ledger counts as accepted',
    duplicate      UInt64                         COMMENT 'Records that it counts as repeats',
    rejected       UInt64                         COMMENT 'Records that it counts as dead letters'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT epoch, partition, max(at) AS newest_at, maxOrNullIf(at, is_ledger) AS folded_to_at,
    dateDiff('millisecond', maxOrNullIf(at, is_ledger), max(at)) AS lag_ms,
    max(after) - maxIf(after, is_ledger) AS offsets_behind,
    maxOrNullIf(flushed, is_ledger) AS flushed_at, sum(accepted_part) AS accepted, sum(duplicate_part) AS duplicate, sum(rejected_part) AS rejected
FROM
(
    SELECT epoch, partition, 1 AS is_ledger, max(logged_at_last) AS at, max(last) + 1 AS after, max(positions.flushed_at) AS flushed,
        sum(positions.accepted) AS accepted_part, sum(positions.duplicate) AS duplicate_part, sum(positions.rejected) AS rejected_part
    FROM positions FINAL
    GROUP BY epoch, partition
    UNION ALL
    SELECT epoch, partition, 0, max(logged_at), max(offset) + 1, toDateTime64(0, 3, 'UTC'), 0, 0, 0 FROM events GROUP BY epoch, partition
)
GROUP BY epoch, partition
COMMENT 'How fresh answers are: the ledger and the newest event stored, by partition';

CREATE OR REPLACE VIEW dead_letter_counts
(
    day       Date                   COMMENT 'Day on which Kafka wrote the records down, UTC',
    reason    LowCardinality(String) COMMENT 'Why they were rejected: a word of docs/events.md',
    letters   UInt64                 COMMENT 'Dead letters',
    open      UInt64                 COMMENT 'Of these, neither replayed nor discarded: what answers may lack',
    replayed  UInt64                 COMMENT 'Of these, sent again',
    discarded UInt64                 COMMENT 'Of these, discarded'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT toDate(letter.logged_at) AS day, letter.reason AS reason, count() AS letters, countIf(settled.state = '') AS open,
    countIf(settled.state = 'replayed') AS replayed, countIf(settled.state = 'discarded') AS discarded
FROM (SELECT epoch, topic, partition, offset, reason, logged_at FROM dead_letters FINAL) AS letter
LEFT JOIN
(
    SELECT epoch, topic, partition, offset, toString(argMax(dead_letter_states.state, at)) AS state
    FROM dead_letter_states
    GROUP BY epoch, topic, partition, offset
) AS settled ON settled.epoch = letter.epoch AND settled.topic = letter.topic AND settled.partition = letter.partition AND settled.offset = letter.offset
GROUP BY day, reason
COMMENT 'Dead letters by day and reason, and what became of them';
