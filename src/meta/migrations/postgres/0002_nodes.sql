-- What many nodes and other blob stores need.

-- Where the blob store keeps the bytes, in its own words; empty: the digest says it all.
ALTER TABLE blob ADD COLUMN location TEXT NOT NULL DEFAULT '';

-- Where the acknowledged bytes are staged, in the blob store's words.
ALTER TABLE upload ADD COLUMN stage TEXT NOT NULL DEFAULT '';
-- Who may write to it, until when: a random text of the holder; empty: nobody.
ALTER TABLE upload ADD COLUMN hold TEXT NOT NULL DEFAULT '';
ALTER TABLE upload ADD COLUMN held_until BIGINT NOT NULL DEFAULT 0;

CREATE VIEW total_now AS
    SELECT name, CAST(sum(value) AS BIGINT) AS value FROM total GROUP BY name
    UNION ALL SELECT 'uploads', count(*) FROM upload;

CREATE INDEX blob_by_location ON blob (location) WHERE location <> '';

-- Who this registry is, and which one it is a copy of; empty: none, it leads a life of its own.
CREATE TABLE identity (
    id TEXT NOT NULL,
    origin TEXT NOT NULL
);
INSERT INTO identity (id, origin) VALUES (replace(CAST(gen_random_uuid() AS TEXT), '-', ''), '');
