-- Runs become one log: a run's place in it is what the insert token claims, so that at any time at most one run is
-- unfinished, and every later one can build on its frozen lines.
ALTER TABLE runs
    ADD COLUMN IF NOT EXISTS sequence UInt32 COMMENT 'Place of the run in the log of all runs, from 1' AFTER run,
    ADD COLUMN IF NOT EXISTS number UInt32 DEFAULT 1 COMMENT 'Number of the run among those of its period, from 1' AFTER period,
    ADD COLUMN IF NOT EXISTS kind LowCardinality(String) DEFAULT 'bill' COMMENT 'bill: a period with all that belongs to it; adjustments: corrections of earlier runs only' AFTER number,
    ADD COLUMN IF NOT EXISTS customers Array(String) COMMENT 'Customers that are billed; empty: all with that period' AFTER kind;

ALTER TABLE runs
    COMMENT COLUMN period 'The period that is billed: 2013-01, 2013-Q1, 2013, 2013-W05, 2013-01-31..2013-02-28',
    COMMENT COLUMN state 'closing: claimed, lines are being made; closed: frozen; exported: all its lines were delivered';

ALTER TABLE line_items
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
    ADD INDEX IF NOT EXISTS customer_range customer TYPE minmax GRANULARITY 1;

ALTER TABLE line_items
    COMMENT COLUMN id 'UUIDv5 of customer, subscription, plan, charge, kind, reference, dimensions, period, service_start, revision',
    COMMENT COLUMN period 'The billing period the line belongs to; of an adjustment, that of the line it corrects',
    COMMENT COLUMN model 'How it is priced: the charge''s model; empty where there is none';
