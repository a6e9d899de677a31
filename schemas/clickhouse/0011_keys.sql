-- Keys are append-only: a key is never edited, it only ends, and the earliest end counts, so nothing makes one valid again.
CREATE TABLE IF NOT EXISTS api_keys
(
    key        String                           COMMENT 'Public part of the key, which names it',
    name       String                           COMMENT 'What the key is for',
    hmac       String                           COMMENT 'HMAC-SHA256 of the whole key under the pepper, hexadecimal; the key itself is stored nowhere',
    pepper     LowCardinality(String)           COMMENT 'Which pepper: a fingerprint of it',
    scopes     Array(LowCardinality(String))    COMMENT 'What it may do: ingest, query, export, admin',
    customer   String                           COMMENT 'The only customer it may send and ask for; empty: every one',
    expires_at Nullable(DateTime64(3, 'UTC'))   COMMENT 'When it ends by itself, UTC; empty: never',
    replaces   String                           COMMENT 'The key it was made to replace, or empty',
    at         DateTime64(3, 'UTC')             COMMENT 'When it was made, UTC',
    by         String                           COMMENT 'Who made it: user and machine'
)
ENGINE = MergeTree
ORDER BY key
COMMENT 'Every API key ever made, without its secret';

CREATE TABLE IF NOT EXISTS api_key_ends
(
    key     String                 COMMENT 'The key',
    ends_at DateTime64(3, 'UTC')   COMMENT 'From when on it is no longer taken, UTC; 1970 for at once, whatever a gateway''s clock says',
    why     LowCardinality(String) COMMENT 'revoked, or rotated',
    at      DateTime64(3, 'UTC')   COMMENT 'When that was decided, UTC',
    by      String                 COMMENT 'Who decided it: user and machine'
)
ENGINE = MergeTree
ORDER BY (key, at)
COMMENT 'Ends of API keys; of several the earliest counts';

-- Gateways write what they saw in bulk; the largest time stays.
CREATE TABLE IF NOT EXISTS api_key_uses
(
    key     String                                               COMMENT 'The key',
    used_at SimpleAggregateFunction(max, DateTime64(3, 'UTC'))   COMMENT 'When it was last used, UTC; up to half a minute late'
)
ENGINE = AggregatingMergeTree
ORDER BY key
COMMENT 'When each API key was last used; read with max and GROUP BY';
