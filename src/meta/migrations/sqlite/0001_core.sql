-- Repositories, blobs, manifests, tags and uploads. Times are microseconds since 1970, UTC;
-- digests are text as the protocol writes them.

CREATE TABLE repository (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT;

-- A row says that the bytes are in the blob store, durable and whole.
CREATE TABLE blob (
    id INTEGER PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

-- A blob is served only in repositories that link it.
CREATE TABLE repository_blob (
    repository_id INTEGER NOT NULL REFERENCES repository (id),
    blob_id INTEGER NOT NULL REFERENCES blob (id),
    linked_at INTEGER NOT NULL,
    PRIMARY KEY (repository_id, blob_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX repository_blob_by_blob ON repository_blob (blob_id);

-- content is byte for byte what was pushed, and last, so that lists never read it.
CREATE TABLE manifest (
    id INTEGER PRIMARY KEY,
    repository_id INTEGER NOT NULL REFERENCES repository (id),
    digest TEXT NOT NULL,
    media_type TEXT NOT NULL,
    artifact_type TEXT NOT NULL, -- empty: none
    subject TEXT,                -- digest of the manifest that this one refers to
    annotations TEXT NOT NULL,   -- a JSON object; empty: none
    pushed_at INTEGER NOT NULL,
    size INTEGER NOT NULL,
    content BLOB NOT NULL,
    UNIQUE (repository_id, digest)
) STRICT;
CREATE INDEX manifest_by_subject ON manifest (repository_id, subject, digest)
    WHERE subject IS NOT NULL;

-- What a manifest needs to be whole: its config, its layers, its children.
CREATE TABLE manifest_reference (
    repository_id INTEGER NOT NULL REFERENCES repository (id),
    digest TEXT NOT NULL,
    manifest_id INTEGER NOT NULL REFERENCES manifest (id) ON DELETE CASCADE,
    PRIMARY KEY (repository_id, digest, manifest_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX manifest_reference_by_manifest ON manifest_reference (manifest_id);

CREATE TABLE tag (
    repository_id INTEGER NOT NULL REFERENCES repository (id),
    name TEXT NOT NULL,
    manifest_id INTEGER NOT NULL REFERENCES manifest (id) ON DELETE CASCADE,
    updated_at INTEGER NOT NULL,
    PRIMARY KEY (repository_id, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX tag_by_manifest ON tag (manifest_id);

-- An upload that is open: what was acknowledged, and the running hash at that byte.
CREATE TABLE upload (
    id TEXT PRIMARY KEY,
    repository_id INTEGER NOT NULL REFERENCES repository (id),
    received INTEGER NOT NULL,
    hash_state BLOB NOT NULL,
    started_at INTEGER NOT NULL,
    touched_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Totals for /metrics, kept by the triggers below: counting a million rows takes too long.
CREATE TABLE total (
    name TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO total (name, value)
VALUES ('repositories', 0), ('blobs', 0), ('blob_bytes', 0), ('manifests', 0), ('tags', 0),
       ('uploads', 0);

CREATE TRIGGER repository_added AFTER INSERT ON repository BEGIN
    UPDATE total SET value = value + 1 WHERE name = 'repositories';
END;
CREATE TRIGGER repository_removed AFTER DELETE ON repository BEGIN
    UPDATE total SET value = value - 1 WHERE name = 'repositories';
END;
CREATE TRIGGER manifest_added AFTER INSERT ON manifest BEGIN
    UPDATE total SET value = value + 1 WHERE name = 'manifests';
END;
CREATE TRIGGER manifest_removed AFTER DELETE ON manifest BEGIN
    UPDATE total SET value = value - 1 WHERE name = 'manifests';
END;
CREATE TRIGGER tag_added AFTER INSERT ON tag BEGIN
    UPDATE total SET value = value + 1 WHERE name = 'tags';
END;
CREATE TRIGGER tag_removed AFTER DELETE ON tag BEGIN
    UPDATE total SET value = value - 1 WHERE name = 'tags';
END;
CREATE TRIGGER upload_added AFTER INSERT ON upload BEGIN
    UPDATE total SET value = value + 1 WHERE name = 'uploads';
END;
CREATE TRIGGER upload_removed AFTER DELETE ON upload BEGIN
    UPDATE total SET value = value - 1 WHERE name = 'uploads';
END;
CREATE TRIGGER blob_added AFTER INSERT ON blob BEGIN
    UPDATE total SET value = value + 1 WHERE name = 'blobs';
    UPDATE total SET value = value + NEW.size WHERE name = 'blob_bytes';
END;
CREATE TRIGGER blob_removed AFTER DELETE ON blob BEGIN
    UPDATE total SET value = value - 1 WHERE name = 'blobs';
    UPDATE total SET value = value - OLD.size WHERE name = 'blob_bytes';
END;
