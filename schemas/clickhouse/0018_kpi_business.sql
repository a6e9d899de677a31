-- KPIs of money spent and earned, of visitors, trials and users. Business facts are ordinary events; analysts may not
-- read events, so the one view that does is read with its owner's rights and hands out nothing but what is counted.
CREATE OR REPLACE VIEW business_facts
(
    type       LowCardinality(String)    COMMENT 'sales.cost, marketing.cost, site.visit, signup, invitation.sent, nps.response or support.contact',
    subject    String                    COMMENT 'Subject of the event: a visitor, a user, a campaign',
    customer   String                    COMMENT 'Customer the subject belongs to; empty when to none',
    time       DateTime64(6, 'UTC')      COMMENT 'When it happened, UTC',
    month      Date                      COMMENT 'First day of its month, UTC',
    currency   LowCardinality(String)    COMMENT 'data.currency, an ISO 4217 code; empty where it has none',
    amount     Nullable(Decimal(38, 12)) COMMENT 'data.amount; NULL where there is none that can be read',
    score      Nullable(UInt8)           COMMENT 'data.score, 0 to 10; NULL where there is none that can be read',
    invitation String                    COMMENT 'data.invitation: which invitation a signup followed; empty for none'
)
DEFINER = CURRENT_USER SQL SECURITY DEFINER
AS SELECT type, fact.subject AS subject, owner.customer AS customer, time, toDate(toStartOfMonth(time)) AS month,
    JSONExtractString(data, 'currency') AS currency,
    toDecimal128OrNull(if(JSONType(data, 'amount') = 'String', JSONExtractString(data, 'amount'), JSONExtractRaw(data, 'amount')), 12) AS amount,
    if(toUInt8OrNull(score_text) <= 10, toUInt8OrNull(score_text), NULL) AS score,
    JSONExtractString(data, 'invitation') AS invitation
FROM
(
    SELECT type, subject, time,
        if(JSONExtractString(raw, 'type') = 'metering.event.replaced', JSONExtractRaw(raw, 'data', 'data'), JSONExtractRaw(raw, 'data')) AS data,
        if(JSONType(data, 'score') = 'String', JSONExtractString(data, 'score'), JSONExtractRaw(data, 'score')) AS score_text
    FROM events FINAL
    WHERE type IN ('sales.cost', 'marketing.cost', 'site.visit', 'signup', 'invitation.sent', 'nps.response', 'support.contact')
        AND (subject, source, id) NOT IN (SELECT subject, source, id FROM corrections)
) AS fact
LEFT JOIN (SELECT subject, customer FROM subjects FINAL WHERE active = 1) AS owner ON owner.subject = fact.subject
COMMENT 'Business facts among the events, without those that were taken back';

CREATE OR REPLACE VIEW kpi_revenue
(
    month             Date                   COMMENT 'First day of the month in which the billing period begins',
    currency          LowCardinality(String) COMMENT 'ISO 4217 code',
    recurring_revenue Decimal(76, 4)         COMMENT 'Frozen flat lines, less discounts on them',
    usage_revenue     Decimal(76, 4)         COMMENT 'Frozen lines of usage and of minimums and commitments, less discounts on them',
    revenue           Decimal(76, 4)         COMMENT 'Both together; without credits that are drawn down or carried'
)
AS SELECT month, currency, sumIf(amount, is_flat) AS recurring_revenue, sumIf(amount, NOT is_flat) AS usage_revenue, sum(amount) AS revenue
FROM
(
    SELECT toStartOfMonth(toDate(substring(toString(line.period_start, line.timezone), 1, 10))) AS month, line.currency AS currency,
        line.amount AS amount, line.kind = 'flat' OR (line.kind = 'discount' AND reduced.kind = 'flat') AS is_flat
    FROM line_items AS line FINAL
    LEFT JOIN (SELECT DISTINCT id, kind FROM line_items) AS reduced ON reduced.id = line.reduces
    WHERE line.kind IN ('flat', 'usage', 'true_up', 'discount') AND line.run IN (SELECT run FROM runs WHERE state = 'closed')
)
GROUP BY month, currency
COMMENT 'Revenue of frozen lines: recurring and usage, kept apart';

CREATE OR REPLACE VIEW kpi_arpu
(
    month         Date                     COMMENT 'First day of the month',
    currency      LowCardinality(String)   COMMENT 'ISO 4217 code',
    users         UInt64                   COMMENT 'Customers at its end',
    mrr           Decimal(76, 12)          COMMENT 'Monthly recurring revenue at its end',
    usage_revenue Decimal(76, 12)          COMMENT 'Usage revenue of frozen lines',
    revenue       Decimal(76, 12)          COMMENT 'mrr + usage_revenue',
    arpu          Nullable(Decimal(38, 4)) COMMENT 'revenue / users'
)
AS SELECT month, currency, sum(customers) AS users, sum(recurring) AS mrr, sum(used) AS usage_revenue, mrr + usage_revenue AS revenue,
    round(toDecimal256(sum(recurring) + sum(used), 12) / nullIf(toDecimal256(users, 0), 0), 4) AS arpu
FROM
(
    SELECT month, currency, customers, toDecimal256(kpi_mrr.mrr, 12) AS recurring, toDecimal256(0, 12) AS used FROM kpi_mrr
    UNION ALL
    SELECT month, currency, 0, toDecimal256(0, 12), toDecimal256(kpi_revenue.usage_revenue, 12) FROM kpi_revenue
)
GROUP BY month, currency
COMMENT 'Average revenue per user, a user being a customer';

CREATE OR REPLACE VIEW kpi_clv
(
    month               Date                     COMMENT 'First day of the month',
    currency            LowCardinality(String)   COMMENT 'ISO 4217 code',
    customer_value      Nullable(Decimal(38, 4)) COMMENT 'Revenue of a customer in a month: ARPU',
    customers_lost      UInt64                   COMMENT 'Times that customers were lost until its end',
    lifespan_months     Nullable(Decimal(38, 4)) COMMENT 'For how many months these had been customers, on average',
    clv                 Nullable(Decimal(38, 4)) COMMENT 'customer_value x lifespan_months',
    customer_churn_rate Nullable(Decimal(38, 4)) COMMENT 'Percent of customers lost in the month',
    clv_by_churn        Nullable(Decimal(38, 4)) COMMENT 'customer_value / customer_churn_rate x 100'
)
AS SELECT churn.month AS month, churn.currency AS currency, arpu.arpu AS customer_value, lost.times AS customers_lost,
    round(toDecimal256(lost.months, 12) / nullIf(toDecimal256(lost.times, 0), 0), 4) AS lifespan_months,
    round(toDecimal256(arpu.arpu, 12) * lost.months / nullIf(toDecimal256(lost.times, 0), 0), 4) AS clv,
    churn.customer_churn_rate AS customer_churn_rate,
    round(toDecimal256(arpu.arpu, 12) * churn.customers_start / nullIf(toDecimal256(churn.customers_lost, 0), 0), 4) AS clv_by_churn
FROM kpi_churn AS churn
INNER JOIN kpi_arpu AS arpu ON arpu.month = churn.month AND arpu.currency = churn.currency
INNER JOIN
(
    SELECT month, currency, sum(times_lost) OVER (PARTITION BY currency ORDER BY month) AS times, sum(months_lost) OVER (PARTITION BY currency ORDER BY month) AS months
    FROM
    (
        SELECT month, currency, countIf(movement = 'churned') AS times_lost, sumIf(months_held, movement = 'churned') AS months_lost
        FROM
        (
            SELECT month, currency, movement,
                sum(at_end) OVER (PARTITION BY currency, customer ORDER BY month) AS months_held
            FROM kpi_customer_months
        )
        GROUP BY month, currency
    )
) AS lost ON lost.month = churn.month AND lost.currency = churn.currency
COMMENT 'Customer lifetime value, by the lifespan of those who were lost and by churn';

CREATE OR REPLACE VIEW kpi_cac
(
    month              Date                     COMMENT 'First day of the month',
    currency           LowCardinality(String)   COMMENT 'ISO 4217 code',
    sales_cost         Decimal(76, 12)          COMMENT 'Sum of sales.cost',
    marketing_cost     Decimal(76, 12)          COMMENT 'Sum of marketing.cost',
    costs_unreadable   UInt64                   COMMENT 'Costs without an amount that can be read: while there are any, the KPI is too low',
    customers_acquired UInt64                   COMMENT 'Customers at its end who never were one before',
    cac                Nullable(Decimal(38, 4)) COMMENT '(sales_cost + marketing_cost) / customers_acquired',
    clv                Nullable(Decimal(38, 4)) COMMENT 'Customer lifetime value by lifespan',
    clv_to_cac         Nullable(Decimal(38, 4)) COMMENT 'clv / cac, no percent',
    payback_months     Nullable(Decimal(38, 4)) COMMENT 'cac / ARPU: months until a customer has paid for itself'
)
AS SELECT spent.month AS month, spent.currency AS currency, spent.sales AS sales_cost, spent.marketing AS marketing_cost,
    spent.unreadable AS costs_unreadable, spent.acquired AS customers_acquired,
    round((spent.sales + spent.marketing) / nullIf(toDecimal256(spent.acquired, 0), 0), 4) AS cac,
    value.clv AS clv,
    round(toDecimal256(value.clv, 12) * spent.acquired / nullIf(spent.sales + spent.marketing, 0), 4) AS clv_to_cac,
    round((spent.sales + spent.marketing) / nullIf(toDecimal256(spent.acquired, 0), 0) / nullIf(toDecimal256(value.customer_value, 4), 0), 4) AS payback_months
FROM
(
    SELECT month, currency, sum(sales_part) AS sales, sum(marketing_part) AS marketing, sum(unreadable_part) AS unreadable, sum(acquired_part) AS acquired
    FROM
    (
        SELECT month, currency,
            toDecimal256(if(type = 'sales.cost', ifNull(amount, 0), 0), 12) AS sales_part,
            toDecimal256(if(type = 'marketing.cost', ifNull(amount, 0), 0), 12) AS marketing_part,
            toUInt64(isNull(amount)) AS unreadable_part,
            toUInt64(0) AS acquired_part
        FROM business_facts
        WHERE type IN ('sales.cost', 'marketing.cost')
        UNION ALL
        SELECT month, currency, toDecimal256(0, 12), toDecimal256(0, 12), toUInt64(0), toUInt64(movement = 'new') FROM kpi_customer_months
    )
    GROUP BY month, currency
) AS spent
LEFT JOIN (SELECT month, currency, clv, customer_value FROM kpi_clv) AS value ON value.month = spent.month AND value.currency = spent.currency
COMMENT 'Customer acquisition cost, lifetime value to it, and months to pay back';

CREATE OR REPLACE VIEW kpi_conversion
(
    month                    Date                     COMMENT 'First day of the month, UTC',
    visitors                 UInt64                   COMMENT 'Different subjects of site.visit',
    conversions              UInt64                   COMMENT 'Different subjects of signup',
    customer_conversion_rate Nullable(Decimal(38, 4)) COMMENT 'conversions / visitors x 100'
)
AS SELECT month, uniqExactIf(subject, type = 'site.visit') AS visitors, uniqExactIf(subject, type = 'signup') AS conversions,
    round(toDecimal256(conversions * 100, 12) / nullIf(toDecimal256(visitors, 0), 0), 4) AS customer_conversion_rate
FROM business_facts
WHERE type IN ('site.visit', 'signup')
GROUP BY month
COMMENT 'Customer conversion rate: signups for each visitor';

CREATE OR REPLACE VIEW kpi_trials
(
    month                 Date                     COMMENT 'First day of the month in which trials and free plans began',
    currency              LowCardinality(String)   COMMENT 'ISO 4217 code',
    trials_started        UInt64                   COMMENT 'Trials that began in it',
    trials_converted      UInt64                   COMMENT 'Of these, converted until today',
    trial_conversion_rate Nullable(Decimal(38, 4)) COMMENT 'trials_converted / trials_started x 100',
    free_started          UInt64                   COMMENT 'Subscriptions that began in it on a free plan',
    free_converted        UInt64                   COMMENT 'Of these, paying since, until today',
    free_to_paid_rate     Nullable(Decimal(38, 4)) COMMENT 'free_converted / free_started x 100'
)
AS SELECT month, currency, countIf(is_trial) AS trials_started, countIf(is_trial AND is_converted) AS trials_converted,
    round(toDecimal256(trials_converted * 100, 12) / nullIf(toDecimal256(trials_started, 0), 0), 4) AS trial_conversion_rate,
    countIf(is_free) AS free_started, countIf(is_free AND has_paid) AS free_converted,
    round(toDecimal256(free_converted * 100, 12) / nullIf(toDecimal256(free_started, 0), 0), 4) AS free_to_paid_rate
FROM
(
    SELECT subscription, currency, toStartOfMonth(min(day)) AS month, countIf(type = 'trial.started') > 0 AS is_trial,
        countIf(type = 'trial.converted') > 0 AS is_converted, argMin(status, number) = 'free' AS is_free, countIf(status = 'paying') > 0 AS has_paid
    FROM subscription_events
    WHERE day <= today()
    GROUP BY subscription, currency
)
WHERE is_trial OR is_free
GROUP BY month, currency
COMMENT 'Trial conversion and free-to-paid, by the month of the beginning';

CREATE OR REPLACE VIEW kpi_nps
(
    month      Date                     COMMENT 'First day of the month, UTC',
    responses  UInt64                   COMMENT 'Answers with a score from 0 to 10',
    promoters  UInt64                   COMMENT 'Scores of 9 and 10',
    passives   UInt64                   COMMENT 'Scores of 7 and 8',
    detractors UInt64                   COMMENT 'Scores of 0 to 6',
    unreadable UInt64                   COMMENT 'Answers without a score that can be read; they count nowhere else',
    nps        Nullable(Decimal(38, 4)) COMMENT 'Percent of promoters less percent of detractors, -100 to 100'
)
AS SELECT month, count(score) AS responses, countIf(score >= 9) AS promoters, countIf(score BETWEEN 7 AND 8) AS passives,
    countIf(score <= 6) AS detractors, countIf(score IS NULL) AS unreadable,
    round(toDecimal256((toInt64(promoters) - toInt64(detractors)) * 100, 12) / nullIf(toDecimal256(responses, 0), 0), 4) AS nps
FROM business_facts
WHERE type = 'nps.response'
GROUP BY month
COMMENT 'Net promoter score';

CREATE OR REPLACE VIEW kpi_active_users
(
    day           Date                     COMMENT 'Day, UTC',
    users_day     UInt64                   COMMENT 'Different subjects with measured usage on it',
    users_week    UInt64                   COMMENT 'The same in the 7 days that end with it',
    users_month   UInt64                   COMMENT 'The same in the 30 days that end with it',
    day_to_month  Nullable(Decimal(38, 4)) COMMENT 'users_day / users_month x 100: stickiness',
    week_to_month Nullable(Decimal(38, 4)) COMMENT 'users_week / users_month x 100'
)
AS SELECT day, uniqExactIf(subject, back = 0) AS users_day, uniqExactIf(subject, back < 7) AS users_week, uniqExact(subject) AS users_month,
    round(toDecimal256(users_day * 100, 12) / nullIf(toDecimal256(users_month, 0), 0), 4) AS day_to_month,
    round(toDecimal256(users_week * 100, 12) / nullIf(toDecimal256(users_month, 0), 0), 4) AS week_to_month
FROM
(
    SELECT subject, active_day + back AS day, arrayJoin(range(30)) AS back
    FROM (SELECT DISTINCT subject, toDate(window_start) AS active_day FROM rollups FINAL WHERE events_count > 0)
)
WHERE day <= today()
GROUP BY day
COMMENT 'Active users by day, over 7 and over 30 days, and their ratios';

CREATE OR REPLACE VIEW kpi_viral
(
    month                 Date                     COMMENT 'First day of the month, UTC',
    users                 UInt64                   COMMENT 'Different subjects with measured usage in it',
    invitations           UInt64                   COMMENT 'Events invitation.sent',
    invited_signups       UInt64                   COMMENT 'Signups that name an invitation',
    invitations_per_user  Nullable(Decimal(38, 4)) COMMENT 'invitations / users',
    invitation_conversion Nullable(Decimal(38, 4)) COMMENT 'invited_signups / invitations x 100',
    viral_coefficient     Nullable(Decimal(38, 4)) COMMENT 'k = invitations per user x conversion of invitations: users that a user brings'
)
AS SELECT month, sum(active) AS users, sum(sent) AS invitations, sum(followed) AS invited_signups,
    round(toDecimal256(invitations, 12) / nullIf(toDecimal256(users, 0), 0), 4) AS invitations_per_user,
    round(toDecimal256(invited_signups * 100, 12) / nullIf(toDecimal256(invitations, 0), 0), 4) AS invitation_conversion,
    if(invitations = 0, NULL, round(toDecimal256(invited_signups, 12) / nullIf(toDecimal256(users, 0), 0), 4)) AS viral_coefficient
FROM
(
    SELECT month, 0 AS active, countIf(type = 'invitation.sent') AS sent, countIf(type = 'signup' AND invitation != '') AS followed
    FROM business_facts
    WHERE type IN ('invitation.sent', 'signup')
    GROUP BY month
    UNION ALL
    SELECT toDate(toStartOfMonth(window_start)) AS month, uniqExact(subject), 0, 0 FROM rollups FINAL WHERE events_count > 0 GROUP BY month
)
GROUP BY month
COMMENT 'Viral coefficient';
