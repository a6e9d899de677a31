-- What happens to subscriptions, written when a catalog is applied. A life that a catalog version changes is written
-- again as a whole, with the version: of each subscription the newest version counts, and writing it twice changes nothing.
CREATE TABLE IF NOT EXISTS subscription_facts
(
    subscription    String                 COMMENT 'Subscription id',
    catalog_version UInt32                 COMMENT 'Catalog version that says so; of a subscription the newest counts',
    number          UInt32                 COMMENT 'Place of the fact in the subscription''s life, from 0',
    type            LowCardinality(String) COMMENT 'subscription.started, .changed, .paused, .resumed, .cancelled, trial.started or .converted; subscription.withdrawn: the catalog lists it no more, it never was',
    day             Date                   COMMENT 'The customer''s own day on which it happens',
    at              DateTime64(0, 'UTC')   COMMENT 'When that day begins, UTC',
    customer        String                 COMMENT 'Customer id',
    currency        LowCardinality(String) COMMENT 'ISO 4217 code the subscription is billed in',
    plan            LowCardinality(String) COMMENT 'Plan id, after everything that happens on the day',
    plan_version    UInt32                 COMMENT 'Version of the plan, after everything that happens on the day',
    status          LowCardinality(String) COMMENT 'trial, free, paying, paused or ended, after everything that happens on the day',
    recurring       Decimal(38, 12)        COMMENT 'Flat charges brought to a month, before discounts; 0 unless paying; in currency units',
    recurring_year  Decimal(38, 12)        COMMENT 'The same brought to a year'
)
ENGINE = ReplacingMergeTree
ORDER BY (subscription, catalog_version, number)
COMMENT 'What happens to subscriptions, by the catalog version that says so; read the view subscription_events';

CREATE OR REPLACE VIEW subscription_events
(
    subscription    String                 COMMENT 'Subscription id',
    number          UInt32                 COMMENT 'Place of the fact in the subscription''s life, from 0',
    type            LowCardinality(String) COMMENT 'subscription.started, .changed, .paused, .resumed, .cancelled, trial.started or trial.converted',
    day             Date                   COMMENT 'The customer''s own day on which it happens; may be in the future',
    at              DateTime64(0, 'UTC')   COMMENT 'When that day begins, UTC',
    customer        String                 COMMENT 'Customer id',
    currency        LowCardinality(String) COMMENT 'ISO 4217 code the subscription is billed in',
    plan            LowCardinality(String) COMMENT 'Plan id, after everything that happens on the day',
    plan_version    UInt32                 COMMENT 'Version of the plan, after everything that happens on the day',
    status          LowCardinality(String) COMMENT 'trial, free, paying, paused or ended, after everything that happens on the day',
    recurring       Decimal(38, 12)        COMMENT 'Recurring revenue of a month from then on, before discounts, in currency units',
    recurring_year  Decimal(38, 12)        COMMENT 'The same of a year',
    catalog_version UInt32                 COMMENT 'Catalog version that says so'
)
AS SELECT subscription, number, type, day, at, customer, currency, plan, plan_version, status, recurring, recurring_year, catalog_version
FROM subscription_facts FINAL
WHERE (subscription, catalog_version) IN (SELECT subscription, max(catalog_version) FROM subscription_facts GROUP BY subscription)
    AND type != 'subscription.withdrawn'
COMMENT 'What happens to each subscription, as the newest catalog has it';

CREATE OR REPLACE VIEW subscription_spans
(
    subscription    String                 COMMENT 'Subscription id',
    customer        String                 COMMENT 'Customer id',
    currency        LowCardinality(String) COMMENT 'ISO 4217 code the subscription is billed in',
    plan            LowCardinality(String) COMMENT 'Plan id',
    plan_version    UInt32                 COMMENT 'Version of the plan',
    status          LowCardinality(String) COMMENT 'trial, free, paying or paused',
    recurring       Decimal(38, 12)        COMMENT 'Recurring revenue of a month, before discounts, in currency units',
    recurring_year  Decimal(38, 12)        COMMENT 'The same of a year',
    day_from        Date                   COMMENT 'First day of the span',
    day_to          Date                   COMMENT 'First day after the span; 2149-06-06 while nothing more is known'
)
AS SELECT subscription, customer, currency, plan, plan_version, status, recurring, recurring_year, day_from, day_to
FROM
(
    SELECT subscription, customer, currency, plan, plan_version, status, recurring, recurring_year, day AS day_from,
        leadInFrame(day, 1, toDate('2149-06-06')) OVER (PARTITION BY subscription ORDER BY number ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING) AS day_to
    FROM subscription_events
)
WHERE day_from < day_to AND status != 'ended'
COMMENT 'The stretches of days on which a subscription stands the same';
