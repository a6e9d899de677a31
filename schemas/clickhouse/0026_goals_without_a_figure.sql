-- greatest() passes over NULL: a goal whose KPI has no figure was said to miss it by 0.
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
    missing   Nullable(Decimal(76, 12)) COMMENT 'What it misses the target by; 0 when it does not, NULL where the KPI is',
    state     LowCardinality(String)    COMMENT 'on_track, at_risk or missed; unknown where the KPI is NULL'
)
AS SELECT goal, month, currency, kpi, value, direction, target, tolerance,
    if(value IS NULL, NULL, greatest(if(direction = 'at_most', value - target, target - value), toDecimal256(0, 12))) AS missing,
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
