-- Customer health: figures of usage, engagement and feedback, each with its score from 0 to 100 and its weight, and
-- the blend of them. Weights and bounds are those of the newest catalog; so are the quotas that are looked for.
CREATE OR REPLACE VIEW health_rules
(
    part    LowCardinality(String) COMMENT 'trend, breadth, recency, limits, engagement, nps or contacts',
    weight  Decimal(38, 12)        COMMENT 'What the part weighs in the blend; 0: nothing',
    zero_at Decimal(38, 12)        COMMENT 'The figure that scores 0',
    full_at Decimal(38, 12)        COMMENT 'The figure that scores 100'
)
AS SELECT part,
    toDecimal128(if(said_weight = '', tupleElement(usual, 2), said_weight), 12) AS weight,
    toDecimal128(if(said_zero_at = '', tupleElement(usual, 3), said_zero_at), 12) AS zero_at,
    toDecimal128(if(said_full_at = '', tupleElement(usual, 4), said_full_at), 12) AS full_at
FROM
(
    SELECT usual, tupleElement(usual, 1) AS part, JSONExtractString(said, part, 'weight') AS said_weight,
        JSONExtractString(said, part, 'zero_at') AS said_zero_at, JSONExtractString(said, part, 'full_at') AS said_full_at
    FROM
    (
        SELECT JSONExtractRaw(document, 'catalog', 'health') AS said,
            arrayJoin([
                ('trend', '20', '50', '100'), ('breadth', '10', '0', '50'), ('recency', '20', '30', '2'), ('limits', '10', '3', '0'),
                ('engagement', '20', '0', '60'), ('nps', '10', '0', '10'), ('contacts', '10', '5', '0')]) AS usual
        FROM (SELECT document FROM catalog_versions ORDER BY version DESC LIMIT 1)
    )
)
COMMENT 'What customer health is blended of, as the newest catalog says or, where it does not, as usual';

CREATE OR REPLACE VIEW quota_hits
(
    quota        String                    COMMENT 'Quota id in the newest catalog',
    customer     String                    COMMENT 'Customer id',
    meter        LowCardinality(String)    COMMENT 'Meter name',
    quantity     Decimal(76, 12)           COMMENT 'What may be used in a period, in the unit of the meter',
    period_start Date                      COMMENT 'First day of the period that the quota holds for, by the clock of the customer',
    day          Date                      COMMENT 'Day of the customer on which it was used up',
    used         Nullable(Decimal(76, 12)) COMMENT 'What had been used of the period as that day ended'
)
AS WITH
    quotas AS
    (
        SELECT JSONExtractString(one, 'id') AS id, JSONExtractString(one, 'meter') AS meter, toDecimal256(JSONExtractString(one, 'quantity'), 12) AS quantity,
            JSONExtractString(one, 'plan') AS plan, JSONExtractString(one, 'customer') AS customer, JSONExtractString(one, 'period') AS period
        FROM
        (
            SELECT arrayJoin(JSONExtractArrayRaw(document, 'catalog', 'quotas')) AS one
            FROM (SELECT document FROM catalog_versions ORDER BY version DESC LIMIT 1)
        )
    ),
    plans AS
    (
        SELECT JSONExtractString(one, 'id') AS id, JSONExtractUInt(one, 'version') AS version, JSONExtractString(one, 'period') AS period,
            JSONExtractString(one, 'anchor') AS anchor, JSONExtractUInt(one, 'period_days') AS period_days
        FROM
        (
            SELECT arrayJoin(JSONExtractArrayRaw(document, 'catalog', 'plans')) AS one
            FROM (SELECT document FROM catalog_versions ORDER BY version DESC LIMIT 1)
        )
    ),
    terms AS
    (
        SELECT id AS quota, quotas.customer AS customer, '' AS subscription, meter, quantity, if(period = '', 'month', period) AS unit, false AS has_own_days,
            toUInt32(1) AS unit_days, toDate('1970-01-01') AS first_day, toDate('1970-01-01') AS day_from, toDate('2149-06-06') AS day_to
        FROM quotas
        WHERE quotas.customer != ''
        UNION ALL
        SELECT each.id, span.customer, span.subscription, each.meter, each.quantity, if(each.period = '', plan.period, each.period),
            each.period = '' AND (plan.anchor = 'anniversary' OR plan.period = 'days'), toUInt32(greatest(plan.period_days, 1)), begun.first_day,
            span.day_from, span.day_to
        FROM (SELECT subscription, customer, plan, plan_version, day_from, day_to FROM subscription_spans) AS span
        INNER JOIN quotas AS each ON each.plan = span.plan
        INNER JOIN plans AS plan ON plan.id = span.plan AND plan.version = span.plan_version
        INNER JOIN (SELECT subscription, min(day) AS first_day FROM subscription_events GROUP BY subscription) AS begun ON begun.subscription = span.subscription
        WHERE (span.customer, each.meter) NOT IN (SELECT customer, meter FROM quotas WHERE customer != '')
    )
SELECT quota, customer, meter, any(allowed) AS quantity, period_start, min(used_on) AS day, argMin(used_by_then, used_on) AS used
FROM
(
    SELECT quota, customer, meter, quantity AS allowed, period_start, used_on, day_from, day_to,
        multiIf(
            aggregation = 'count', toDecimal256(sum(events) OVER so_far, 12),
            aggregation = 'sum', toDecimal256(sum(total) OVER so_far, 12),
            aggregation = 'unique_count', toDecimal256(uniqExactMerge(members) OVER so_far, 12),
            aggregation = 'max', toDecimal256(max(greatest_value) OVER so_far, 12),
            aggregation = 'min', toDecimal256(min(smallest_value) OVER so_far, 12),
            aggregation = 'latest', toDecimal256(argMaxMerge(latest) OVER so_far, 12),
            aggregation = 'avg', toDecimal256(sum(total) OVER so_far, 12) / nullIf(toDecimal256(sum(events) OVER so_far, 0), 0),
            NULL) AS used_by_then
    FROM
    (
        SELECT term.quota AS quota, term.customer AS customer, term.subscription AS subscription, term.meter AS meter, term.quantity AS quantity,
            term.day_from AS day_from, term.day_to AS day_to, use.aggregation AS aggregation, use.used_on AS used_on, use.events AS events, use.total AS total,
            use.smallest_value AS smallest_value, use.greatest_value AS greatest_value, use.latest AS latest, use.members AS members,
            transform(term.unit, ['month', 'quarter', 'year'], [1, 3, 12], 1) AS unit_months,
            intDiv(dateDiff('month', term.first_day, used_on), unit_months) AS units_since,
            multiIf(
                term.has_own_days AND term.unit IN ('week', 'days'),
                used_on - positiveModulo(used_on - term.first_day, if(term.unit = 'week', 7, term.unit_days)),
                term.has_own_days,
                addMonths(term.first_day, unit_months * (units_since - if(addMonths(term.first_day, unit_months * units_since) > used_on, 1, 0))),
                term.unit = 'week', toMonday(used_on),
                term.unit = 'quarter', toStartOfQuarter(used_on),
                term.unit = 'year', toStartOfYear(used_on),
                toStartOfMonth(used_on)) AS period_start
        FROM terms AS term
        INNER JOIN
        (
            SELECT customer, meter, aggregation, usage_parts.day AS used_on, sum(events_count) AS events, sum(value_sum) AS total, min(value_min) AS smallest_value,
                max(value_max) AS greatest_value, argMaxState(value_latest, (latest_time, epoch, partition, latest_offset)) AS latest,
                uniqExactState(member) AS members
            FROM usage_parts
            WHERE customer != '' AND aggregation != 'time_weighted' AND meter IN (SELECT meter FROM quotas)
            GROUP BY customer, meter, aggregation, used_on
        ) AS use ON use.customer = term.customer AND use.meter = term.meter
    )
    WINDOW so_far AS (PARTITION BY quota, customer, subscription, day_from, period_start, aggregation ORDER BY used_on)
)
WHERE used_by_then >= allowed AND used_by_then > 0 AND used_on >= day_from AND used_on < day_to
GROUP BY quota, customer, meter, period_start
COMMENT 'Quotas that customers used up: each once for a period, on the day on which it was';

CREATE OR REPLACE VIEW kpi_customer_health_parts
(
    customer    String                   COMMENT 'Customer id',
    month       Date                     COMMENT 'First day of the month',
    part        LowCardinality(String)   COMMENT 'trend, breadth, recency, limits, engagement, nps or contacts',
    figure      Nullable(Decimal(38, 4)) COMMENT 'What was found, in the unit of the part; NULL where there is nothing to find',
    zero_at     Decimal(38, 12)          COMMENT 'The figure that scores 0',
    full_at     Decimal(38, 12)          COMMENT 'The figure that scores 100',
    score       Nullable(Decimal(38, 4)) COMMENT '(figure - zero_at) / (full_at - zero_at) x 100, no less than 0 and no more than 100',
    weight      Decimal(38, 12)          COMMENT 'What the part weighs',
    weight_used Nullable(Decimal(38, 4)) COMMENT 'Percent that it has of the weights of all parts with a figure; NULL where it has none'
)
AS SELECT customer, month, part, figure, zero_at, full_at, score, weight,
    if(figure IS NULL, NULL, round(toDecimal256(weight * 100, 12) / nullIf(toDecimal256(sumIf(weight, figure IS NOT NULL) OVER (PARTITION BY customer, month), 12), 0), 4)) AS weight_used
FROM
(
    SELECT found.customer AS customer, found.month AS month, rule.part AS part, rule.weight AS weight, rule.zero_at AS zero_at, rule.full_at AS full_at,
        tupleElement(arrayFirst(one -> tupleElement(one, 1) = rule.part, found.figures), 2) AS figure,
        (toDecimal256(figure, 12) - rule.zero_at) * 100 / (toDecimal256(rule.full_at, 12) - rule.zero_at) AS unbounded,
        multiIf(unbounded IS NULL, NULL, unbounded <= 0, toDecimal256(0, 12), unbounded >= 100, toDecimal256(100, 12), round(unbounded, 4)) AS score
    FROM
    (
        SELECT customer, month,
            if(days_whole = 0 OR events_before = 0, NULL,
                round(toDecimal256(events_whole * 100 * days_before, 12) / nullIf(toDecimal256(events_before * days_whole, 0), 0), 4)) AS trend,
            round(toDecimal256(meters * 100, 12) / nullIf(toDecimal256((SELECT uniqExact(meter) FROM meter_versions), 0), 0), 4) AS breadth,
            least(toLastDayOfMonth(month), today()) - last_day_so_far AS days_without,
            toDecimal256(if(days_without < 0, 0, days_without), 4) AS recency,
            if(has_quota = 0, NULL, toDecimal256(quotas_hit, 4)) AS limits,
            round(toDecimal256(days_active * 100, 12) / nullIf(toDecimal256(days_whole, 0), 0), 4) AS engagement,
            round(toDecimal256(scores_sum, 12) / nullIf(toDecimal256(scores_count, 0), 0), 4) AS nps,
            if(contacts_since IS NULL OR month < contacts_since, NULL, toDecimal256(contacts_count, 4)) AS contacts,
            [
                ('trend', CAST(trend AS Nullable(Decimal(38, 4)))), ('breadth', CAST(breadth AS Nullable(Decimal(38, 4)))),
                ('recency', CAST(recency AS Nullable(Decimal(38, 4)))), ('limits', CAST(limits AS Nullable(Decimal(38, 4)))),
                ('engagement', CAST(engagement AS Nullable(Decimal(38, 4)))), ('nps', CAST(nps AS Nullable(Decimal(38, 4)))),
                ('contacts', CAST(contacts AS Nullable(Decimal(38, 4))))
            ] AS figures
        FROM
        (
            SELECT customer, month, events_whole, meters, days_active, quotas_hit, has_quota, contacts_count,
                toInt64(toYear(month)) * 12 + toMonth(month) AS month_number,
                toUInt64(greatest(least(addMonths(month, 1), today()) - month, 0)) AS days_whole,
                toUInt64(month - addMonths(month, -1)) AS days_before,
                sum(events) OVER (PARTITION BY customer ORDER BY month_number RANGE BETWEEN 1 PRECEDING AND 1 PRECEDING) AS events_before,
                max(last_day) OVER (PARTITION BY customer ORDER BY month_number) AS last_day_so_far,
                sum(scores_sum_here) OVER (PARTITION BY customer ORDER BY month_number RANGE BETWEEN 11 PRECEDING AND CURRENT ROW) AS scores_sum,
                sum(scores_count_here) OVER (PARTITION BY customer ORDER BY month_number RANGE BETWEEN 11 PRECEDING AND CURRENT ROW) AS scores_count,
                (SELECT minOrNull(business_facts.month) FROM business_facts WHERE business_facts.type = 'support.contact' AND business_facts.customer != '') AS contacts_since
            FROM
            (
                SELECT customer, month, sum(events_part) AS events, sum(events_whole_part) AS events_whole, sum(meters_part) AS meters,
                    sum(days_active_part) AS days_active, max(last_day_part) AS last_day, sum(quotas_hit_part) AS quotas_hit,
                    max(has_quota_part) AS has_quota, sum(scores_sum_part) AS scores_sum_here, sum(scores_count_part) AS scores_count_here,
                    sum(contacts_part) AS contacts_count
                FROM
                (
                    SELECT customer, toStartOfMonth(day) AS month, sum(events) AS events_part, sumIf(events, day < today()) AS events_whole_part,
                        uniqExact(meter) AS meters_part, uniqExactIf(day, day < today()) AS days_active_part, CAST(max(day) AS Nullable(Date)) AS last_day_part,
                        toUInt64(0) AS quotas_hit_part, toUInt8(0) AS has_quota_part, toUInt64(0) AS scores_sum_part, toUInt64(0) AS scores_count_part,
                        toUInt64(0) AS contacts_part
                    FROM
                    (
                        SELECT customer, meter, day, sum(events_count) AS events
                        FROM usage_parts
                        WHERE customer != '' AND member IS NULL
                        GROUP BY customer, meter, day
                    )
                    GROUP BY customer, month
                    UNION ALL
                    SELECT customer,
                        arrayJoin(arrayMap(
                            step -> addMonths(toStartOfMonth(day_from), step),
                            range(toUInt32(greatest(0, 1 + dateDiff('month', toStartOfMonth(day_from), toStartOfMonth(least(day_to - 1, today())))))))) AS month,
                        0, 0, 0, 0, NULL, 0,
                        plan IN
                        (
                            SELECT JSONExtractString(arrayJoin(JSONExtractArrayRaw(document, 'catalog', 'quotas')), 'plan')
                            FROM (SELECT document FROM catalog_versions ORDER BY version DESC LIMIT 1)
                        )
                        OR customer IN
                        (
                            SELECT JSONExtractString(arrayJoin(JSONExtractArrayRaw(document, 'catalog', 'quotas')), 'customer')
                            FROM (SELECT document FROM catalog_versions ORDER BY version DESC LIMIT 1)
                        ),
                        0, 0, 0
                    FROM subscription_spans
                    UNION ALL
                    SELECT customer, toStartOfMonth(day), 0, 0, 0, 0, NULL, count(), 1, 0, 0, 0 FROM quota_hits GROUP BY customer, toStartOfMonth(day)
                    UNION ALL
                    SELECT customer, month, 0, 0, 0, 0, NULL, 0, 0, toUInt64(sumIf(assumeNotNull(score), type = 'nps.response' AND score IS NOT NULL)),
                        countIf(type = 'nps.response' AND score IS NOT NULL), countIf(type = 'support.contact')
                    FROM business_facts
                    WHERE customer != '' AND type IN ('nps.response', 'support.contact')
                    GROUP BY customer, month
                )
                GROUP BY customer, month
            )
            WHERE month <= today()
        )
    ) AS found
    CROSS JOIN health_rules AS rule
)
COMMENT 'What the health of each customer is blended of: every part with its figure, score and weight';

CREATE OR REPLACE VIEW kpi_customer_health
(
    customer          String                   COMMENT 'Customer id',
    month             Date                     COMMENT 'First day of the month',
    health            Nullable(Decimal(38, 4)) COMMENT 'Sum of score x weight over the parts with a figure, divided by the sum of their weights: 0 to 100',
    weight_covered    Nullable(Decimal(38, 4)) COMMENT 'Percent of all weights that stand in it; the rest has no figure',
    trend             Nullable(Decimal(38, 4)) COMMENT 'Events a day, in percent of the month before; NULL where that had none',
    trend_score       Nullable(Decimal(38, 4)) COMMENT 'Its score, 0 to 100',
    trend_weight      Decimal(38, 12)          COMMENT 'Its weight',
    breadth           Nullable(Decimal(38, 4)) COMMENT 'Meters with events in the month, in percent of the meters of the catalog',
    breadth_score     Nullable(Decimal(38, 4)) COMMENT 'Its score, 0 to 100',
    breadth_weight    Decimal(38, 12)          COMMENT 'Its weight',
    recency           Nullable(Decimal(38, 4)) COMMENT 'Days from the last event to the last day of the month, or to today; NULL where there never was one',
    recency_score     Nullable(Decimal(38, 4)) COMMENT 'Its score, 0 to 100',
    recency_weight    Decimal(38, 12)          COMMENT 'Its weight',
    limits            Nullable(Decimal(38, 4)) COMMENT 'Quotas that were used up in the month; NULL for a customer without a quota',
    limits_score      Nullable(Decimal(38, 4)) COMMENT 'Its score, 0 to 100',
    limits_weight     Decimal(38, 12)          COMMENT 'Its weight',
    engagement        Nullable(Decimal(38, 4)) COMMENT 'Days with events, in percent of the days of the month that are over',
    engagement_score  Nullable(Decimal(38, 4)) COMMENT 'Its score, 0 to 100',
    engagement_weight Decimal(38, 12)          COMMENT 'Its weight',
    nps               Nullable(Decimal(38, 4)) COMMENT 'Mean of the scores given in the month and the 11 before; NULL where there was none',
    nps_score         Nullable(Decimal(38, 4)) COMMENT 'Its score, 0 to 100',
    nps_weight        Decimal(38, 12)          COMMENT 'Its weight',
    contacts          Nullable(Decimal(38, 4)) COMMENT 'Times that support was asked in the month; NULL before the first contact of anybody is on record',
    contacts_score    Nullable(Decimal(38, 4)) COMMENT 'Its score, 0 to 100',
    contacts_weight   Decimal(38, 12)          COMMENT 'Its weight'
)
AS SELECT customer, month,
    round(toDecimal256(sumIf(toDecimal256(parts.score, 8) * weight, isNotNull(figure)), 20) / nullIf(toDecimal256(sumIf(weight, isNotNull(figure)), 12), 0), 4) AS health,
    round(toDecimal256(sumIf(weight, isNotNull(figure)) * 100, 12) / nullIf(toDecimal256(sum(weight), 12), 0), 4) AS weight_covered,
    anyIf(figure, part = 'trend') AS trend, anyIf(score, part = 'trend') AS trend_score, anyIf(weight, part = 'trend') AS trend_weight,
    anyIf(figure, part = 'breadth') AS breadth, anyIf(score, part = 'breadth') AS breadth_score, anyIf(weight, part = 'breadth') AS breadth_weight,
    anyIf(figure, part = 'recency') AS recency, anyIf(score, part = 'recency') AS recency_score, anyIf(weight, part = 'recency') AS recency_weight,
    anyIf(figure, part = 'limits') AS limits, anyIf(score, part = 'limits') AS limits_score, anyIf(weight, part = 'limits') AS limits_weight,
    anyIf(figure, part = 'engagement') AS engagement, anyIf(score, part = 'engagement') AS engagement_score, anyIf(weight, part = 'engagement') AS engagement_weight,
    anyIf(figure, part = 'nps') AS nps, anyIf(score, part = 'nps') AS nps_score, anyIf(weight, part = 'nps') AS nps_weight,
    anyIf(figure, part = 'contacts') AS contacts, anyIf(score, part = 'contacts') AS contacts_score, anyIf(weight, part = 'contacts') AS contacts_weight
FROM kpi_customer_health_parts AS parts
GROUP BY customer, month
COMMENT 'Customer health by month: what it is blended of, and the blend';

-- Alerts of drops and spikes against the same weekday stand in the table of all alerts; only what its columns say is wider.
ALTER TABLE alerts
    COMMENT COLUMN watch 'What it looks at: quota, allowance, budget, period_end, drop or spike',
    COMMENT COLUMN limit_id 'Id of the quota, of the charge with the allowance, label of the billing period, or the day of a drop or spike',
    COMMENT COLUMN limit 'The quota, allowance or budget as it was then, or what is usual on the weekday; NULL for a period that ends',
    COMMENT COLUMN threshold 'What was passed, in percent of the limit, or what usage fell to at most; 0 for a period that ends';
