-- What was delivered to whom. Rows are appended: `sent` before anything leaves, so that a crash leaves a trace, and
-- `accepted` or `failed` with the answer. A key that has `sent` and no answer may or may not have arrived.
CREATE TABLE IF NOT EXISTS deliveries
(
    target     LowCardinality(String) COMMENT 'Where to: stripe, webhook, …, or such a name with :NAME',
    run        LowCardinality(String) COMMENT 'The run whose lines were delivered',
    key        String                 COMMENT 'Idempotency key: the line id, or what several lines that go as one are named by',
    attempt    UInt32                 COMMENT 'Counts from 1; one more for each time that a failed key was tried again',
    state      LowCardinality(String) COMMENT 'sent: on its way; accepted: the target has it; failed: the target refused it',
    at         DateTime64(6, 'UTC')   COMMENT 'When it entered the state, UTC',
    lines      Array(UUID)            COMMENT 'Line items that it carries',
    status     LowCardinality(String) COMMENT 'The answer in a word: 200, 402, Success, DuplicateRecord; empty while sent',
    answer     String                 COMMENT 'What the target said, shortened to 2,000 characters',
    foreign_id String                 COMMENT 'Id that the target gave it, or partition and offset in Kafka',
    mark       String                 COMMENT 'Where the target stood before it was sent, for targets that can be read back',
    exporter   String                 COMMENT 'Who sent it: user, machine, process'
)
ENGINE = MergeTree
ORDER BY (target, run, key, attempt, at)
COMMENT 'Delivery ledger: what was sent where and when, and what the answer was';

-- One exporter at a time delivers a run to a target. A claim is won by its insert token, as runs are, and holds until
-- it is released or runs out.
CREATE TABLE IF NOT EXISTS delivery_claims
(
    target   LowCardinality(String) COMMENT 'Where to',
    run      LowCardinality(String) COMMENT 'The run that is being delivered',
    number   UInt32                 COMMENT 'Claims of a target and run count from 1; the highest is the one that holds',
    state    LowCardinality(String) COMMENT 'claimed, renewed or released',
    at       DateTime64(6, 'UTC')   COMMENT 'When, UTC',
    until    DateTime64(6, 'UTC')   COMMENT 'The claim holds until then unless it is renewed',
    exporter String                 COMMENT 'Who holds it: user, machine, process'
)
ENGINE = MergeTree
ORDER BY (target, run, number, at)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Who delivers a run to a target at the moment';
