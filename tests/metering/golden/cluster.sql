CREATE TABLE IF NOT EXISTS events_local ON CLUSTER `main`
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
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/billing/events_local', '{replica}')
PARTITION BY toYYYYMM(logged_at)
ORDER BY (subject, source, id, epoch, partition, offset)
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 315360000
COMMENT 'Accepted usage events, one row a log record; read with FINAL';

CREATE TABLE IF NOT EXISTS events ON CLUSTER `main` AS events_local
ENGINE = Distributed(`main`, `billing`, events_local, cityHash64(subject))
COMMENT 'Accepted usage events, one row a log record; read with FINAL';

CREATE TABLE IF NOT EXISTS members_local ON CLUSTER `main`
(
    meter           LowCardinality(String)  COMMENT 'Meter name',
    subject         String                  COMMENT 'Subject of the events',
    window_start    DateTime('UTC')         COMMENT 'Start of the 15-minute window, UTC, inclusive',
    dimensions      Map(LowCardinality(String), String) COMMENT 'Group-by values by name, sorted by name',
    meter_version   UInt32                  COMMENT 'Version of the meter that measured',
    epoch           LowCardinality(String)  COMMENT 'Which log: Kafka cluster id and topic id',
    partition       UInt32                  COMMENT 'Partition of the log',
    position_first  UInt64                  COMMENT 'First offset that this row''s series covers',
    member          String                  COMMENT 'The counted value, as text',
    position        UInt64                  COMMENT 'Offset of the first event that brought this member to the key'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/billing/members_local', '{replica}')
PARTITION BY toYear(window_start)
ORDER BY (meter, subject, window_start, dimensions, meter_version, epoch, partition, position_first, member)
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 315360000
COMMENT 'Distinct values seen per rollup key; read with FINAL';

CREATE TABLE IF NOT EXISTS members ON CLUSTER `main` AS members_local
ENGINE = Distributed(`main`, `billing`, members_local, cityHash64(subject))
COMMENT 'Distinct values seen per rollup key; read with FINAL';

CREATE TABLE IF NOT EXISTS line_items ON CLUSTER `main`
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
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/all/billing/line_items', '{shard}-{replica}')
ORDER BY (period, run, line_number, id)
SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 315360000
COMMENT 'Frozen line items; read with FINAL';

ALTER TABLE line_items ON CLUSTER `main`
    ADD COLUMN IF NOT EXISTS sequence UInt32 COMMENT 'Place of the run in the log of all runs' AFTER run,
    ADD COLUMN IF NOT EXISTS kind LowCardinality(String) DEFAULT 'usage' COMMENT 'usage, flat, true_up, discount, credit, carried_forward or brought_forward' AFTER corrects,
    ADD COLUMN IF NOT EXISTS reference String COMMENT 'Id of the discount, credit grant or run that the line comes from, or empty' AFTER kind,
    ADD COLUMN IF NOT EXISTS reduces Nullable(UUID) COMMENT 'Id of the line that a discount or a credit reduces' AFTER reference,
    ADD COLUMN IF NOT EXISTS quantity_before Nullable(Decimal(76, 12)) COMMENT 'Adjustment: quantity of all lines so far; NULL for a first line' AFTER reduces,
    ADD COLUMN IF NOT EXISTS quantity_after Nullable(Decimal(76, 12)) COMMENT 'Adjustment: quantity that it should have been' AFTER quantity_before,
    ADD COLUMN IF NOT EXISTS amount_before Nullable(Decimal(76, 4)) COMMENT 'Adjustment: amount of all lines so far' AFTER quantity_after,
    ADD COLUMN IF NOT EXISTS amount_after Nullable(Decimal(76, 4)) COMMENT 'Adjustment: amount that it should have been' AFTER amount_before,
    ADD COLUMN IF NOT EXISTS reason LowCardinality(String) COMMENT 'Adjustment: late_events, corrected_events or subscription_changed; else empty' AFTER amount_after,
    ADD COLUMN IF NOT EXISTS external_ids Map(LowCardinality(String), String) COMMENT 'The customer''s ids in other systems' AFTER customer_name,
    ADD COLUMN IF NOT EXISTS plan_version UInt32 DEFAULT 1 COMMENT 'Version of the plan; 0 for a line about a whole bill' AFTER plan,
    ADD COLUMN IF NOT EXISTS tax_code String COMMENT 'Tax code of the charge, as the catalog has it' AFTER currency,
    ADD COLUMN IF NOT EXISTS terms_days Nullable(UInt16) COMMENT 'Days until the invoice is due' AFTER tax_code,
    ADD INDEX IF NOT EXISTS run_range run TYPE minmax GRANULARITY 1,
    ADD INDEX IF NOT EXISTS customer_range customer TYPE minmax GRANULARITY 1
SETTINGS alter_sync = 2;

ALTER TABLE line_items ON CLUSTER `main`
    COMMENT COLUMN id 'UUIDv5 of customer, subscription, plan, charge, kind, reference, dimensions, period, service_start, revision',
    COMMENT COLUMN period 'The billing period the line belongs to; of an adjustment, that of the line it corrects',
    COMMENT COLUMN model 'How it is priced: the charge''s model; empty where there is none'
SETTINGS alter_sync = 2;

ALTER TABLE members_local ON CLUSTER `main`
    ADD COLUMN IF NOT EXISTS since UInt64
    COMMENT '0 when the member came for the first time; else 1 plus the position of the change. The greatest counts',
    ADD COLUMN IF NOT EXISTS gone UInt8
    COMMENT '1 when no event brings the member to the key any more',
    MODIFY ORDER BY (meter, subject, window_start, dimensions, meter_version, epoch, partition, position_first, member, since)
SETTINGS alter_sync = 2;

ALTER TABLE members ON CLUSTER `main`
    ADD COLUMN IF NOT EXISTS since UInt64
    COMMENT '0 when the member came for the first time; else 1 plus the position of the change. The greatest counts',
    ADD COLUMN IF NOT EXISTS gone UInt8
    COMMENT '1 when no event brings the member to the key any more';

CREATE TABLE IF NOT EXISTS api_key_uses ON CLUSTER `main`
(
    key     String                                               COMMENT 'The key',
    used_at SimpleAggregateFunction(max, DateTime64(3, 'UTC'))   COMMENT 'When it was last used, UTC; up to half a minute late'
)
ENGINE = ReplicatedAggregatingMergeTree('/clickhouse/tables/all/billing/api_key_uses', '{shard}-{replica}')
ORDER BY key
SETTINGS replicated_deduplication_window = 0
COMMENT 'When each API key was last used; read with max and GROUP BY';

CREATE TABLE IF NOT EXISTS meter_fills ON CLUSTER `main`
(
    meter         LowCardinality(String) COMMENT 'Meter name',
    meter_version UInt32                 COMMENT 'Version of the meter',
    epoch         LowCardinality(String) COMMENT 'Which log: Kafka cluster id and topic id',
    partition     UInt32                 COMMENT 'Partition of the log',
    until         UInt64                 COMMENT 'First offset that the filled series does not cover',
    filled_at     DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'When, UTC'
)
ENGINE = ReplicatedReplacingMergeTree('/clickhouse/tables/all/billing/meter_fills', '{shard}-{replica}', until)
ORDER BY (meter, meter_version, epoch, partition)
SETTINGS replicated_deduplication_window = 0
COMMENT 'Offsets that a rebuild has filled meters with, from 0 on; read with FINAL';

ALTER TABLE events_local ON CLUSTER `main`
    ADD COLUMN IF NOT EXISTS receipt_digest UInt128
    COMMENT 'Of an erased event the digest of raw, which is a receipt then; 0 where raw is the record'
SETTINGS alter_sync = 2;

ALTER TABLE events ON CLUSTER `main`
    ADD COLUMN IF NOT EXISTS receipt_digest UInt128
    COMMENT 'Of an erased event the digest of raw, which is a receipt then; 0 where raw is the record';

CREATE OR REPLACE VIEW usage_other ON CLUSTER `main`
(
    day          Date                   COMMENT 'Day of the events'' times, UTC',
    meter        LowCardinality(String) COMMENT 'Meter name',
    dimension    LowCardinality(String) COMMENT 'Name of the dimension in group_by',
    subject      String                 COMMENT 'Subject of the events',
    customer     String                 COMMENT 'Customer the subject belongs to now; empty when to none',
    values_kept  UInt64                 COMMENT 'Values that are told apart on that day',
    events_other UInt64                 COMMENT 'Events of the meter that are counted under `other` in this dimension, on that day'
)
AS SELECT full.day AS day, full.meter AS meter, full.dimension AS dimension, full.subject AS subject, owner.customer AS customer,
    full.values_kept AS values_kept, counted.events_other AS events_other
FROM
(
    SELECT day, meter, dimension, subject, uniqExact(value) - 1 AS values_kept
    FROM (SELECT day, meter, dimension, subject, arrayJoin(kept) AS value FROM group_overflows FINAL)
    GROUP BY day, meter, dimension, subject
) AS full
LEFT JOIN
(
    SELECT day, meter, dimension, subject, sum(events_count) AS events_other
    FROM
    (
        SELECT toDate(window_start) AS day, meter, subject, events_count, arrayJoin(mapKeys(mapFilter((name, value) -> value = 'other', dimensions))) AS dimension
        FROM rollups FINAL
        WHERE (meter, subject, toDate(window_start)) GLOBAL IN (SELECT meter, subject, day FROM group_overflows)
    )
    GROUP BY day, meter, dimension, subject
) AS counted ON counted.day = full.day AND counted.meter = full.meter AND counted.dimension = full.dimension AND counted.subject = full.subject
LEFT JOIN (SELECT subject, customer FROM subjects FINAL WHERE active) AS owner ON owner.subject = full.subject
COMMENT 'Usage that is counted under other because a day had more values than its meter takes';

