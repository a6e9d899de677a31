-- Users of your own ClickHouse, each with no more than its part needs. Run it as an administrator after `metering migrate`,
-- with your passwords, and give each part its user in METERING_CLICKHOUSE_USERNAME and METERING_CLICKHOUSE_PASSWORD_FILE.
-- The embedded engine has one user and no roles.

-- What a question may cost. Whoever is bound by it can ask for less, never for more.
CREATE SETTINGS PROFILE IF NOT EXISTS metering_questions SETTINGS
    max_result_rows = 1000000 MAX 1000000,
    result_overflow_mode = 'throw' READONLY,
    max_rows_to_read = 10000000000 MAX 10000000000,
    max_execution_time = 120 MAX 120,
    max_memory_usage = 8589934592 MAX 8589934592,
    max_concurrent_queries_for_user = 20 READONLY;

-- metering migrate, metering rebuild, metering erase: makes tables, and a scratch database, and rewrites rows.
CREATE ROLE IF NOT EXISTS metering_owner;
GRANT CREATE DATABASE, DROP DATABASE ON *.* TO metering_owner;
GRANT SELECT, INSERT, ALTER, CREATE TABLE, CREATE VIEW, DROP TABLE, DROP VIEW, TRUNCATE, OPTIMIZE ON *.* TO metering_owner;

-- metering worker, alerts, apply, close, keys, dead-letters: reads and adds rows, and changes no table.
CREATE ROLE IF NOT EXISTS metering_writer;
GRANT SELECT, INSERT ON metering.* TO metering_writer;

-- metering gateway: reads the catalog, the keys and usage; writes when keys were used, and nothing else.
CREATE ROLE IF NOT EXISTS metering_gateway SETTINGS PROFILE 'metering_questions';
GRANT SELECT ON metering.catalog_versions TO metering_gateway;
GRANT SELECT ON metering.subjects TO metering_gateway;
GRANT SELECT ON metering.api_keys TO metering_gateway;
GRANT SELECT ON metering.api_key_ends TO metering_gateway;
GRANT SELECT ON metering.rollups TO metering_gateway;
GRANT SELECT ON metering.members TO metering_gateway;
GRANT SELECT ON metering.group_overflows TO metering_gateway;
GRANT SELECT ON metering.events TO metering_gateway;
GRANT SELECT ON metering.positions TO metering_gateway;
GRANT SELECT ON metering.corrections TO metering_gateway;
GRANT SELECT ON metering.meter_fills TO metering_gateway;
GRANT INSERT ON metering.api_key_uses TO metering_gateway;

-- metering export, metering verify: reads what is frozen and what proves it; writes down that it was exported.
CREATE ROLE IF NOT EXISTS metering_exporter;
GRANT SELECT ON metering.* TO metering_exporter;
REVOKE SELECT ON metering.api_keys FROM metering_exporter;
REVOKE SELECT ON metering.dead_letters FROM metering_exporter;
REVOKE SELECT ON metering.erasure_keys FROM metering_exporter;
GRANT INSERT ON metering.audit_log TO metering_exporter;

-- Analysts: quantities, lines and KPIs; no event, no dead letter, no key. Views that count events or dead letters read them with
-- the rights of who ran `metering migrate`, and hand out counts, times and the amounts of business facts.
CREATE ROLE IF NOT EXISTS metering_analyst SETTINGS PROFILE 'metering_questions', readonly = 2;
GRANT SELECT ON metering.rollups TO metering_analyst;
GRANT SELECT ON metering.members TO metering_analyst;
GRANT SELECT ON metering.group_overflows TO metering_analyst;
GRANT SELECT ON metering.subjects TO metering_analyst;
GRANT SELECT ON metering.catalog_versions TO metering_analyst;
GRANT SELECT ON metering.runs TO metering_analyst;
GRANT SELECT ON metering.line_items TO metering_analyst;
GRANT SELECT ON metering.meter_versions TO metering_analyst;
GRANT SELECT ON metering.usage_parts TO metering_analyst;
GRANT SELECT ON metering.balance_days TO metering_analyst;
GRANT SELECT ON metering.usage_15m TO metering_analyst;
GRANT SELECT ON metering.usage_daily TO metering_analyst;
GRANT SELECT ON metering.usage_monthly TO metering_analyst;
GRANT SELECT ON metering.subscription_facts TO metering_analyst;
GRANT SELECT ON metering.subscription_events TO metering_analyst;
GRANT SELECT ON metering.subscription_spans TO metering_analyst;
GRANT SELECT ON metering.kpi_customer_months TO metering_analyst;
GRANT SELECT ON metering.kpi_mrr TO metering_analyst;
GRANT SELECT ON metering.kpi_churn TO metering_analyst;
GRANT SELECT ON metering.kpi_retention TO metering_analyst;
GRANT SELECT ON metering.kpi_retention_weeks TO metering_analyst;
GRANT SELECT ON metering.kpi_cohorts TO metering_analyst;
GRANT SELECT ON metering.business_facts TO metering_analyst;
GRANT SELECT ON metering.kpi_revenue TO metering_analyst;
GRANT SELECT ON metering.kpi_arpu TO metering_analyst;
GRANT SELECT ON metering.kpi_clv TO metering_analyst;
GRANT SELECT ON metering.kpi_cac TO metering_analyst;
GRANT SELECT ON metering.kpi_conversion TO metering_analyst;
GRANT SELECT ON metering.kpi_trials TO metering_analyst;
GRANT SELECT ON metering.kpi_nps TO metering_analyst;
GRANT SELECT ON metering.kpi_active_users TO metering_analyst;
GRANT SELECT ON metering.kpi_viral TO metering_analyst;
GRANT SELECT ON metering.pipeline_freshness TO metering_analyst;
GRANT SELECT ON metering.dead_letter_counts TO metering_analyst;
GRANT SELECT ON metering.kpi_pql TO metering_analyst;
GRANT SELECT ON metering.kpi_values TO metering_analyst;
GRANT SELECT ON metering.kpi_goals TO metering_analyst;
GRANT SELECT ON metering.usage_other TO metering_analyst;
GRANT SELECT ON metering.health_rules TO metering_analyst;
GRANT SELECT ON metering.quota_hits TO metering_analyst;
GRANT SELECT ON metering.kpi_customer_health_parts TO metering_analyst;
GRANT SELECT ON metering.kpi_customer_health TO metering_analyst;
GRANT SELECT ON metering.alerts TO metering_analyst;
GRANT SELECT ON metering.alert_deliveries TO metering_analyst;

CREATE USER IF NOT EXISTS metering_owner IDENTIFIED WITH sha256_password BY 'put a password here' DEFAULT ROLE metering_owner;
CREATE USER IF NOT EXISTS metering_writer IDENTIFIED WITH sha256_password BY 'put a password here' DEFAULT ROLE metering_writer;
CREATE USER IF NOT EXISTS metering_gateway IDENTIFIED WITH sha256_password BY 'put a password here' DEFAULT ROLE metering_gateway;
CREATE USER IF NOT EXISTS metering_exporter IDENTIFIED WITH sha256_password BY 'put a password here' DEFAULT ROLE metering_exporter;
CREATE USER IF NOT EXISTS metering_analyst IDENTIFIED WITH sha256_password BY 'put a password here' DEFAULT ROLE metering_analyst;
GRANT metering_owner TO metering_owner;
GRANT metering_writer TO metering_writer;
GRANT metering_gateway TO metering_gateway;
GRANT metering_exporter TO metering_exporter;
GRANT metering_analyst TO metering_analyst;
