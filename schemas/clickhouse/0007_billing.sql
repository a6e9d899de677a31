-- A run's states are appended, never edited. The row `closing` fixes everything that the lines depend on before the
-- first line is read; its insert token makes the run a claim that one of several closers wins. `closed` freezes it.
CREATE TABLE IF NOT EXISTS runs
(
    run             String                 COMMENT 'Run id: the period and the number of the run in it, 2013-01.1',
    period          LowCardinality(String) COMMENT 'The month that is billed, 2013-01',
    state           LowCardinality(String) COMMENT 'closing: claimed, lines are being made; closed: frozen',
    at              DateTime64(6, 'UTC')   COMMENT 'When the run entered the state, UTC',
    cut             Array(Tuple(epoch String, partition UInt32, offset UInt64)) COMMENT 'Last offset that counts, inclusive, per log and partition',
    catalog_version UInt32                 COMMENT 'Catalog the lines are priced with',
    forced          UInt8                  COMMENT '1 when it was claimed before the period and its grace time were over',
    claimed_by      String                 COMMENT 'Who closed: user and machine',
    code_version    LowCardinality(String) COMMENT 'Version of the code that claimed the run',
    lines_count     UInt64                 COMMENT 'Lines of the frozen run; 0 while closing',
    lines_digest    String                 COMMENT 'SHA-256 of its lines as exported to JSONL, hexadecimal; empty while closing'
)
ENGINE = MergeTree
ORDER BY (period, run, at)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Billing runs, a row for each state a run has entered';

-- A line is a pure function of its run's cut and catalog, so writing it again changes nothing: read with FINAL.
CREATE TABLE IF NOT EXISTS line_items
(
    run              String                 COMMENT 'Run that froze the line',
    line_number      UInt64                 COMMENT 'Place of the line in its run, from 0',
    id               UUID                   COMMENT 'Line item id: UUIDv5 of customer, subscription, charge, dimensions, period, revision',
    revision         UInt32                 COMMENT '0 for a first line; a later line for the same counts up',
    corrects         Nullable(UUID)         COMMENT 'Id of the line that this one corrects',
    period           LowCardinality(String) COMMENT 'The month, 2013-01',
    timezone         LowCardinality(String) COMMENT 'IANA zone in which the period begins and ends at midnight',
    period_start     DateTime64(0, 'UTC')   COMMENT 'Start of the period, UTC, inclusive',
    period_end       DateTime64(0, 'UTC')   COMMENT 'End of the period, UTC, exclusive',
    service_start    DateTime64(0, 'UTC')   COMMENT 'From when usage counts, UTC, inclusive',
    service_end      DateTime64(0, 'UTC')   COMMENT 'Until when usage counts, UTC, exclusive',
    customer         String                 COMMENT 'Customer id',
    customer_name    String                 COMMENT 'Name on the invoice',
    subscription     String                 COMMENT 'Subscription id',
    plan             LowCardinality(String) COMMENT 'Plan id',
    charge           LowCardinality(String) COMMENT 'Charge id within the plan',
    model            LowCardinality(String) COMMENT 'flat, per_unit or graduated',
    description      String                 COMMENT 'Text for the invoice',
    meter            LowCardinality(String) COMMENT 'Meter that was read; empty for a flat charge',
    unit             LowCardinality(String) COMMENT 'Unit of the meter',
    dimensions       Map(LowCardinality(String), String) COMMENT 'Values of the charge''s group_by, by name',
    quantity         Decimal(76, 12)        COMMENT 'What was used; 1 for a flat charge',
    unit_amount      Nullable(Decimal(38, 12)) COMMENT 'Price of one unit; NULL where tiers set it',
    amount_unrounded Decimal(76, 24)        COMMENT 'The exact amount, in currency units',
    amount           Decimal(76, 4)         COMMENT 'The amount rounded to the currency''s minor unit, in currency units',
    currency         LowCardinality(String) COMMENT 'ISO 4217 code',
    events_count     UInt64                 COMMENT 'Events behind the quantity',
    digest           String                 COMMENT 'Sum modulo 2^128 of these events'' digests, hexadecimal',
    catalog_version  UInt32                 COMMENT 'Catalog the line was priced with',
    document         String                 COMMENT 'The whole line as canonical JSON: what is exported' CODEC(ZSTD(3))
)
ENGINE = ReplacingMergeTree
ORDER BY (period, run, line_number, id)
SETTINGS non_replicated_deduplication_window = 10000
COMMENT 'Frozen line items; read with FINAL';
