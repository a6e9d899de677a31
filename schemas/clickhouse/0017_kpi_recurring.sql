-- KPIs of recurring revenue, from the life of subscriptions alone. A customer stands in a month as its last day has it
-- (the present month: as today has it); what happens on a day counts in that day's month. Who has a subscription that
-- is paying or paused, in a currency, is a customer in that currency. Ratios are rounded to 4 decimals; nothing
-- divided by nothing is NULL.
CREATE OR REPLACE VIEW kpi_customer_months
(
    month       Date                   COMMENT 'First day of the month',
    currency    LowCardinality(String) COMMENT 'ISO 4217 code',
    customer    String                 COMMENT 'Customer id',
    at_start    UInt8                  COMMENT '1 when a customer as the month began',
    at_end      UInt8                  COMMENT '1 when a customer at its end',
    mrr_start   Decimal(38, 12)        COMMENT 'Recurring revenue of a month, as the month began',
    mrr_end     Decimal(38, 12)        COMMENT 'The same at its end',
    arr_end     Decimal(38, 12)        COMMENT 'Recurring revenue of a year, at its end',
    first_month Date                   COMMENT 'First month at whose end it was a customer: its cohort',
    movement    LowCardinality(String) COMMENT 'new, reactivated, churned, expansion, contraction or none'
)
AS SELECT month, currency, customer, at_start, at_end, mrr_start, mrr_end, arr_end, first_month,
    multiIf(
        at_start = 0 AND month = first_month, 'new',
        at_start = 0, 'reactivated',
        at_end = 0, 'churned',
        mrr_end > mrr_start, 'expansion',
        mrr_end < mrr_start, 'contraction',
        'none') AS movement
FROM
(
    SELECT month, currency, customer, max(is_start) AS at_start, max(is_end) AS at_end, sum(before) AS mrr_start,
        sum(after) AS mrr_end, sum(after_year) AS arr_end, min(if(at_end = 1, month, toDate('2149-06-06'))) OVER (PARTITION BY currency, customer) AS first_month
    FROM
    (
        WITH closings AS
        (
            SELECT month, currency, customer, recurring, recurring_year
            FROM
            (
                SELECT currency, customer, recurring, recurring_year, day_from, day_to,
                    arrayJoin(arrayMap(
                        step -> addMonths(toStartOfMonth(day_from), step),
                        range(toUInt32(greatest(0, 1 + dateDiff('month', toStartOfMonth(day_from), toStartOfMonth(least(day_to, today())))))))) AS month
                FROM subscription_spans
                WHERE status IN ('paying', 'paused')
            )
            WHERE day_from <= least(toLastDayOfMonth(month), today()) AND day_to > least(toLastDayOfMonth(month), today())
        )
        SELECT month, currency, customer, 0 AS is_start, 1 AS is_end, toDecimal128(0, 12) AS before, recurring AS after, recurring_year AS after_year FROM closings
        UNION ALL
        SELECT addMonths(month, 1), currency, customer, 1, 0, recurring, toDecimal128(0, 12), toDecimal128(0, 12) FROM closings WHERE month < toStartOfMonth(today())
    )
    GROUP BY month, currency, customer
)
COMMENT 'Each customer in each month: there or not, with which recurring revenue, and what changed';

CREATE OR REPLACE VIEW kpi_mrr
(
    month             Date                   COMMENT 'First day of the month',
    currency          LowCardinality(String) COMMENT 'ISO 4217 code',
    customers         UInt64                 COMMENT 'Customers at its end',
    mrr_start         Decimal(38, 12)        COMMENT 'Monthly recurring revenue as it began',
    mrr_new           Decimal(38, 12)        COMMENT 'Of customers who never were one before',
    mrr_expansion     Decimal(38, 12)        COMMENT 'What customers pay more than as it began',
    mrr_contraction   Decimal(38, 12)        COMMENT 'What customers pay less, pauses included; negative',
    mrr_churned       Decimal(38, 12)        COMMENT 'Of customers who left; negative',
    mrr_reactivated   Decimal(38, 12)        COMMENT 'Of customers who came back',
    mrr               Decimal(38, 12)        COMMENT 'Monthly recurring revenue at its end: the sum of the six',
    arr               Decimal(38, 12)        COMMENT 'Annual recurring revenue: what is charged in a year, at its end'
)
AS SELECT
    month,
    currency,
    sum(at_end) AS customers,
    sum(kpi_customer_months.mrr_start) AS mrr_start,
    sumIf(mrr_end, movement = 'new') AS mrr_new,
    sumIf(mrr_end - kpi_customer_months.mrr_start, movement = 'expansion') AS mrr_expansion,
    sumIf(mrr_end - kpi_customer_months.mrr_start, movement = 'contraction') AS mrr_contraction,
    sumIf(-kpi_customer_months.mrr_start, movement = 'churned') AS mrr_churned,
    sumIf(mrr_end, movement = 'reactivated') AS mrr_reactivated,
    sum(mrr_end) AS mrr,
    sum(arr_end) AS arr
FROM kpi_customer_months
GROUP BY month, currency
COMMENT 'Monthly recurring revenue, what moved it, and annual recurring revenue';

CREATE OR REPLACE VIEW kpi_churn
(
    month                Date                      COMMENT 'First day of the month',
    currency             LowCardinality(String)    COMMENT 'ISO 4217 code',
    customers_start      UInt64                    COMMENT 'Customers as it began',
    customers_lost       UInt64                    COMMENT 'Of these, no customers at its end',
    customer_churn_rate  Nullable(Decimal(38, 4))  COMMENT 'customers_lost / customers_start x 100',
    mrr_start            Decimal(38, 12)           COMMENT 'Recurring revenue as it began',
    mrr_lost             Decimal(38, 12)           COMMENT 'Lost to cancellation, downgrade and pause',
    revenue_churn_rate   Nullable(Decimal(38, 4))  COMMENT 'mrr_lost / mrr_start x 100'
)
AS SELECT
    month,
    currency,
    sum(at_start) AS customers_start,
    countIf(movement = 'churned') AS customers_lost,
    round(toDecimal256(customers_lost * 100, 12) / nullIf(toDecimal256(customers_start, 0), 0), 4) AS customer_churn_rate,
    sum(kpi_customer_months.mrr_start) AS mrr_start,
    sumIf(kpi_customer_months.mrr_start - mrr_end, movement IN ('churned', 'contraction')) AS mrr_lost,
    round(toDecimal256(mrr_lost * 100, 12) / nullIf(toDecimal256(sum(kpi_customer_months.mrr_start), 12), 0), 4) AS revenue_churn_rate
FROM kpi_customer_months
GROUP BY month, currency
COMMENT 'Customer churn and revenue churn';

CREATE OR REPLACE VIEW kpi_retention
(
    month                   Date                      COMMENT 'First day of the month',
    currency                LowCardinality(String)    COMMENT 'ISO 4217 code',
    customers_start         UInt64                    COMMENT 'Customers as it began',
    customers_end           UInt64                    COMMENT 'Customers at its end',
    customers_acquired      UInt64                    COMMENT 'Customers at its end who were none as it began',
    customer_retention_rate Nullable(Decimal(38, 4))  COMMENT '(customers_end - customers_acquired) / customers_start x 100',
    mrr_start               Decimal(38, 12)           COMMENT 'Recurring revenue as it began',
    mrr_kept_net            Decimal(38, 12)           COMMENT 'Recurring revenue at its end of those who were customers as it began',
    mrr_kept_gross          Decimal(38, 12)           COMMENT 'The same, of each customer no more than as it began',
    net_revenue_retention   Nullable(Decimal(38, 4))  COMMENT 'mrr_kept_net / mrr_start x 100; more than 100 when expansion outweighs what was lost',
    gross_revenue_retention Nullable(Decimal(38, 4))  COMMENT 'mrr_kept_gross / mrr_start x 100; never more than 100'
)
AS SELECT
    month,
    currency,
    sum(at_start) AS customers_start,
    sum(at_end) AS customers_end,
    countIf(movement IN ('new', 'reactivated')) AS customers_acquired,
    round(toDecimal256((customers_end - customers_acquired) * 100, 12) / nullIf(toDecimal256(customers_start, 0), 0), 4) AS customer_retention_rate,
    sum(kpi_customer_months.mrr_start) AS mrr_start,
    sumIf(mrr_end, at_start = 1) AS mrr_kept_net,
    sumIf(least(mrr_end, kpi_customer_months.mrr_start), at_start = 1) AS mrr_kept_gross,
    round(toDecimal256(mrr_kept_net * 100, 12) / nullIf(toDecimal256(sum(kpi_customer_months.mrr_start), 12), 0), 4) AS net_revenue_retention,
    round(toDecimal256(mrr_kept_gross * 100, 12) / nullIf(toDecimal256(sum(kpi_customer_months.mrr_start), 12), 0), 4) AS gross_revenue_retention
FROM kpi_customer_months
GROUP BY month, currency
COMMENT 'Customer retention rate, net and gross revenue retention, by month';

-- Weeks are compared as sets of numbered customers, so that any two weeks cost two sets and not two scans.
CREATE OR REPLACE VIEW kpi_retention_weeks
(
    week_start              Date                      COMMENT 'Monday on which the weeks begin',
    weeks                   UInt32                    COMMENT 'How many weeks, 1 to 104',
    currency                LowCardinality(String)    COMMENT 'ISO 4217 code',
    customers_start         UInt64                    COMMENT 'Customers as that Monday begins, before what happens on it',
    customers_end           UInt64                    COMMENT 'Customers as the weeks are over',
    customers_acquired      UInt64                    COMMENT 'Customers at the end who were none at the start',
    customer_retention_rate Nullable(Decimal(38, 4))  COMMENT '(customers_end - customers_acquired) / customers_start x 100'
)
AS WITH mondays AS
(
    SELECT monday, currency, groupBitmapState(customer_number) AS customers
    FROM
    (
        SELECT currency, toUInt32(dense_rank() OVER (ORDER BY customer)) AS customer_number,
            arrayJoin(arrayMap(
                step -> toMonday(day_from) + 7 * (step + 1),
                range(toUInt32(greatest(0, intDiv(toInt32(toMonday(least(day_to, today())) - toMonday(day_from)), 7)))))) AS monday
        FROM subscription_spans
        WHERE status IN ('paying', 'paused') AND day_from < day_to
    )
    WHERE monday <= today()
    GROUP BY monday, currency
)
SELECT
    start.monday AS week_start,
    toUInt32(intDiv(toInt32(end.monday - start.monday), 7)) AS weeks,
    start.currency AS currency,
    bitmapCardinality(start.customers) AS customers_start,
    bitmapCardinality(end.customers) AS customers_end,
    customers_end - bitmapAndCardinality(start.customers, end.customers) AS customers_acquired,
    round(toDecimal256((customers_end - customers_acquired) * 100, 12) / nullIf(toDecimal256(customers_start, 0), 0), 4) AS customer_retention_rate
FROM mondays AS start
INNER JOIN mondays AS end ON start.currency = end.currency
WHERE end.monday > start.monday AND end.monday <= start.monday + 7 * 104
COMMENT 'Customer retention rate over any number of weeks: ask for weeks = 8';

CREATE OR REPLACE VIEW kpi_cohorts
(
    cohort             Date                      COMMENT 'Month in which its customers were acquired',
    currency           LowCardinality(String)    COMMENT 'ISO 4217 code',
    months_since       UInt32                    COMMENT 'Months since then; 0 is that month',
    customers_acquired UInt64                    COMMENT 'Customers of the cohort',
    customers_kept     UInt64                    COMMENT 'Of these, customers at the end of the month',
    retention_rate     Nullable(Decimal(38, 4))  COMMENT 'customers_kept / customers_acquired x 100',
    mrr                Decimal(38, 12)           COMMENT 'Recurring revenue of the cohort at the end of the month'
)
AS SELECT cohort, currency, months_since, customers_acquired, customers_kept,
    round(toDecimal256(customers_kept * 100, 12) / nullIf(toDecimal256(customers_acquired, 0), 0), 4) AS retention_rate,
    mrr
FROM
(
    SELECT first_month AS cohort, currency, dateDiff('month', first_month, month) AS months_since,
        sum(at_end) AS customers_kept, sum(mrr_end) AS mrr
    FROM kpi_customer_months
    GROUP BY first_month, currency, month
) AS kept
INNER JOIN
(
    SELECT first_month AS cohort, currency, countIf(movement = 'new') AS customers_acquired
    FROM kpi_customer_months
    GROUP BY first_month, currency
) AS cohorts USING (cohort, currency)
COMMENT 'Customers by the month they were acquired in: how many stayed, and what they pay; a month without a row has none left';
