-- Erasing a customer: who was erased, the key that pseudonyms are made with, and what proves an event whose record is gone.
-- Rows are only added. The insert token makes a number a claim: of two erasures that begin at once, one wins.
CREATE TABLE IF NOT EXISTS erasures
(
    number   UInt32                 COMMENT 'Place in the log of all erasures, from 1; at any time at most the last is unfinished',
    customer String                 COMMENT 'Customer id, as in the frozen lines',
    state    LowCardinality(String) COMMENT 'claimed; erasing: rows are being rewritten; erased: done; abandoned: nothing was rewritten',
    subjects Array(String)          COMMENT 'Pseudonyms of the customer''s subjects: whose records are stored without personal data from now on',
    at       DateTime64(3, 'UTC')   COMMENT 'When the erasure entered the state, UTC',
    by       String                 COMMENT 'Who erased: user and machine'
)
ENGINE = MergeTree
ORDER BY (number, at)
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'Erasures of customers, a row for each state an erasure has entered';

CREATE TABLE IF NOT EXISTS erasure_keys
(
    key     String                 COMMENT 'Random, hexadecimal. Pseudonyms are HMACs under it: nobody reads a name from one, who has the key can test a guess',
    made_at DateTime64(3, 'UTC')   COMMENT 'When, UTC'
)
ENGINE = MergeTree
ORDER BY made_at
SETTINGS non_replicated_deduplication_window = 100000
COMMENT 'The one key of all pseudonyms, made by the first erasure';

ALTER TABLE events
    ADD COLUMN IF NOT EXISTS receipt_digest UInt128
    COMMENT 'Of an erased event the digest of raw, which is a receipt then; 0 where raw is the record';
