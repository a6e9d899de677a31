-- What was told of whom. A row is written before the alert leaves, with its id as the insert token, so that of two who
-- find the same thing one writes it down; whoever sends it, sends what stands here.
CREATE TABLE IF NOT EXISTS alerts
(
    id           UUID                    COMMENT 'The same for the same rule, customer, limit, threshold and period; the idempotency key of its delivery',
    rule         LowCardinality(String)  COMMENT 'Id of the alert in the catalog',
    watch        LowCardinality(String)  COMMENT 'What it looks at: quota, allowance, budget or period_end',
    customer     String                  COMMENT 'Customer it is about',
    meter        LowCardinality(String)  COMMENT 'Meter; empty where it is not about one',
    limit_id     String                  COMMENT 'Id of the quota, of the charge with the allowance, or label of the billing period',
    threshold    UInt32                  COMMENT 'What was passed, in percent of the limit; 0 for a period that ends',
    period_start DateTime('UTC')         COMMENT 'Start of the span that the limit holds for, UTC, inclusive',
    period_end   DateTime('UTC')         COMMENT 'End of the span, UTC, exclusive',
    limit        Nullable(Decimal(76, 12)) COMMENT 'The quota, allowance or budget as it was then; NULL for a period that ends',
    value        Nullable(Decimal(76, 12)) COMMENT 'What had been used, or spent, when it was found; NULL for a period that ends',
    unit         LowCardinality(String)  COMMENT 'Unit of limit and value: the meter''s, or a currency',
    as_of        DateTime64(3, 'UTC')    COMMENT 'What was rolled up by then is in value, UTC',
    fired_at     DateTime64(3, 'UTC')    COMMENT 'When it was written down, UTC'
)
ENGINE = MergeTree
ORDER BY (period_end, id)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Alerts, each once for a threshold and period';

CREATE TABLE IF NOT EXISTS alert_deliveries
(
    id     UUID                   COMMENT 'The alert',
    target LowCardinality(String) COMMENT 'webhook or kafka',
    state  LowCardinality(String) COMMENT 'accepted: the target has it; failed: the target refused it, and it is not sent again',
    at     DateTime64(3, 'UTC')   COMMENT 'When it answered, UTC',
    status LowCardinality(String) COMMENT 'The answer in a word: an HTTP status, or acknowledged',
    answer String                 COMMENT 'What it said, shortened to 2,000 characters',
    by     String                 COMMENT 'Who sent it: user, machine, process'
)
ENGINE = ReplacingMergeTree
ORDER BY (id, target, at)
COMMENT 'What became of alerts that were sent; an alert without a row here for a target is still to be sent';
