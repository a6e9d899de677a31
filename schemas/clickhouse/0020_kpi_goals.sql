-- KPIs that depend on what the catalog says: qualified leads by its rules, and every KPI against its goals. Both are
-- read from the newest catalog.
CREATE OR REPLACE VIEW kpi_pql
(
    month            Date                     COMMENT 'First day of the month in which the trials began',
    currency         LowCardinality(String)   COMMENT 'ISO 4217 code',
    trials_started   UInt64                   COMMENT 'Trials that began in it',
    qualified        UInt64                   COMMENT 'Of these, product-qualified: any rule of qualified_leads was met in the trial',
    qualified_paid   UInt64                   COMMENT 'Of these, converted until today',
    pql_to_paid_rate Nullable(Decimal(38, 4)) COMMENT 'qualified_paid / qualified x 100'
)
AS SELECT month, currency, count() AS trials_started, countIf(is_qualified) AS qualified, countIf(is_qualified AND is_converted) AS qualified_paid,
    round(toDecimal256(qualified_paid * 100, 12) / nullIf(toDecimal256(qualified, 0), 0), 4) AS pql_to_paid_rate
FROM
(
    SELECT trial.subscription AS subscription, trial.month AS month, trial.currency AS currency, trial.is_converted AS is_converted,
        countIf(rule.events_min > 0 AND used.events >= rule.events_min) > 0 AS is_qualified
    FROM
    (
        SELECT subscription, any(customer) AS customer, currency, toStartOfMonth(min(day)) AS month,
            countIf(type = 'trial.converted' AND day <= today()) > 0 AS is_converted
        FROM subscription_events
        GROUP BY subscription, currency
        HAVING countIf(type = 'trial.started' AND day <= today()) > 0
    ) AS trial
    LEFT JOIN
    (
        SELECT span.subscription AS subscription, usage.meter AS meter, sum(usage.events_count) AS events
        FROM (SELECT subscription, customer, day_from, day_to FROM subscription_spans WHERE status = 'trial') AS span
        INNER JOIN (SELECT customer, meter, day, events_count FROM usage_daily) AS usage ON usage.customer = span.customer
        WHERE usage.day >= span.day_from AND usage.day < span.day_to
        GROUP BY subscription, meter
    ) AS used ON used.subscription = trial.subscription
    LEFT JOIN
    (
        SELECT JSONExtractString(one, 'meter') AS meter, JSONExtractUInt(one, 'events_min') AS events_min
        FROM
        (
            SELECT arrayJoin(JSONExtractArrayRaw(document, 'catalog', 'qualified_leads')) AS one
            FROM (SELECT document FROM catalog_versions ORDER BY version DESC LIMIT 1)
        )
    ) AS rule ON rule.meter = used.meter
    GROUP BY subscription, month, currency, is_converted
)
GROUP BY month, currency
COMMENT 'Product-qualified leads, and how many of them pay';

CREATE OR REPLACE VIEW kpi_values
(
    month    Date                      COMMENT 'First day of the month',
    currency LowCardinality(String)    COMMENT 'ISO 4217 code; empty for a KPI that has none',
    kpi      LowCardinality(String)    COMMENT 'Name of the KPI: its column in its own view, and what a goal calls it',
    value    Nullable(Decimal(76, 12)) COMMENT 'What it is, in its own unit; NULL where there is none'
)
AS SELECT month, currency, tupleElement(pair, 1) AS kpi, tupleElement(pair, 2) AS value
FROM
(
    SELECT month, currency AS currency, arrayJoin([('mrr', CAST(mrr AS Nullable(Decimal(76, 12)))), ('arr', CAST(arr AS Nullable(Decimal(76, 12)))), ('customers', CAST(customers AS Nullable(Decimal(76, 12))))]) AS pair FROM kpi_mrr
    UNION ALL
    SELECT month, currency AS currency, arrayJoin([('customer_churn_rate', CAST(customer_churn_rate AS Nullable(Decimal(76, 12)))), ('revenue_churn_rate', CAST(revenue_churn_rate AS Nullable(Decimal(76, 12))))]) AS pair FROM kpi_churn
    UNION ALL
    SELECT month, currency AS currency, arrayJoin([('customer_retention_rate', CAST(customer_retention_rate AS Nullable(Decimal(76, 12)))), ('net_revenue_retention', CAST(net_revenue_retention AS Nullable(Decimal(76, 12)))), ('gross_revenue_retention', CAST(gross_revenue_retention AS Nullable(Decimal(76, 12))))]) AS pair FROM kpi_retention
    UNION ALL
    SELECT month, currency AS currency, arrayJoin([('usage_revenue', CAST(usage_revenue AS Nullable(Decimal(76, 12))))]) AS pair FROM kpi_revenue
    UNION ALL
    SELECT month, currency AS currency, arrayJoin([('arpu', CAST(arpu AS Nullable(Decimal(76, 12))))]) AS pair FROM kpi_arpu
    UNION ALL
    SELECT month, currency AS currency, arrayJoin([('clv', CAST(clv AS Nullable(Decimal(76, 12))))]) AS pair FROM kpi_clv
    UNION ALL
    SELECT month, currency AS currency, arrayJoin([('cac', CAST(cac AS Nullable(Decimal(76, 12)))), ('clv_to_cac', CAST(clv_to_cac AS Nullable(Decimal(76, 12)))), ('payback_months', CAST(payback_months AS Nullable(Decimal(76, 12))))]) AS pair FROM kpi_cac
    UNION ALL
    SELECT month, currency AS currency, arrayJoin([('trial_conversion_rate', CAST(trial_conversion_rate AS Nullable(Decimal(76, 12)))), ('free_to_paid_rate', CAST(free_to_paid_rate AS Nullable(Decimal(76, 12))))]) AS pair FROM kpi_trials
    UNION ALL
    SELECT month, currency AS currency, arrayJoin([('pql_to_paid_rate', CAST(pql_to_paid_rate AS Nullable(Decimal(76, 12))))]) AS pair FROM kpi_pql
    UNION ALL
    SELECT month, '' AS currency, arrayJoin([('customer_conversion_rate', CAST(customer_conversion_rate AS Nullable(Decimal(76, 12))))]) AS pair FROM kpi_conversion
    UNION ALL
    SELECT month, '' AS currency, arrayJoin([('nps', CAST(nps AS Nullable(Decimal(76, 12))))]) AS pair FROM kpi_nps
    UNION ALL
    SELECT month, '' AS currency, arrayJoin([('viral_coefficient', CAST(viral_coefficient AS Nullable(Decimal(76, 12))))]) AS pair FROM kpi_viral
)
COMMENT 'Every KPI that can have a goal, one row each';

CREATE OR REPLACE VIEW kpi_goals
(
    goal      String                    COMMENT 'Goal id in the newest catalog',
    month     Date                      COMMENT 'First day of the month',
    currency  LowCardinality(String)    COMMENT 'ISO 4217 code; empty for a KPI that has none',
    kpi       LowCardinality(String)    COMMENT 'Name of the KPI',
    value     Nullable(Decimal(76, 12)) COMMENT 'What it is',
    direction LowCardinality(String)    COMMENT 'at_least or at_most',
    target    Decimal(76, 12)           COMMENT 'What it shall be',
    tolerance Decimal(76, 12)           COMMENT 'What it may miss the target by and be at risk only',
    missing   Nullable(Decimal(76, 12)) COMMENT 'What it misses the target by; 0 when it does not',
    state     LowCardinality(String)    COMMENT 'on_track, at_risk or missed; unknown where the KPI is NULL'
)
AS SELECT goal, month, currency, kpi, value, direction, target, tolerance,
    greatest(if(direction = 'at_most', value - target, target - value), toDecimal256(0, 12)) AS missing,
    multiIf(
        value IS NULL, 'unknown',
        if(direction = 'at_most', value - target, target - value) <= 0, 'on_track',
        if(direction = 'at_most', value - target, target - value) <= tolerance, 'at_risk',
        'missed') AS state
FROM
(
    SELECT set_goal.id AS goal, actual.month AS month, actual.currency AS currency, actual.kpi AS kpi, actual.value AS value,
        set_goal.direction AS direction, set_goal.target AS target, set_goal.tolerance AS tolerance
    FROM kpi_values AS actual
    INNER JOIN
    (
        SELECT JSONExtractString(one, 'id') AS id, JSONExtractString(one, 'kpi') AS kpi, JSONExtractString(one, 'currency') AS currency,
            JSONExtractString(one, 'direction') AS direction, toDecimal256(JSONExtractString(one, 'target'), 12) AS target,
            toDecimal256(JSONExtractString(one, 'tolerance'), 12) AS tolerance
        FROM
        (
            SELECT arrayJoin(JSONExtractArrayRaw(document, 'catalog', 'goals')) AS one
            FROM (SELECT document FROM catalog_versions ORDER BY version DESC LIMIT 1)
        )
    ) AS set_goal ON set_goal.kpi = actual.kpi AND set_goal.currency = actual.currency
)
COMMENT 'KPIs against the goals of the newest catalog';
