-- The catalog is append-only: a version is never edited. The insert token makes a version number a claim that one
-- of two simultaneous applies wins.
CREATE TABLE IF NOT EXISTS catalog_versions
(
    version    UInt32               COMMENT 'Counts up from 1',
    digest     String               COMMENT 'SHA-256 of document, hexadecimal',
    document   String               COMMENT 'The whole catalog as canonical JSON' CODEC(ZSTD(3)),
    applied_at DateTime64(3, 'UTC') COMMENT 'When it was applied, UTC',
    applied_by String               COMMENT 'Who applied it: user and machine'
)
ENGINE = MergeTree
ORDER BY version
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Every catalog that was ever in force, whole';

CREATE TABLE IF NOT EXISTS subjects
(
    subject         String                 COMMENT 'Subject of events',
    customer        String                 COMMENT 'Customer id the subject belongs to',
    customer_name   String                 COMMENT 'Name on the invoice',
    timezone        LowCardinality(String) COMMENT 'IANA zone in which the customer''s days and periods begin',
    currency        LowCardinality(String) COMMENT 'ISO 4217 code the customer is billed in',
    active          UInt8                  COMMENT '1 while the catalog lists the subject',
    catalog_version UInt32                 COMMENT 'Catalog version that says so'
)
ENGINE = ReplacingMergeTree(catalog_version)
ORDER BY subject
COMMENT 'Which customer each subject belongs to, from the newest catalog; read with FINAL';
