-- Work in the background, done once by any node.

CREATE TABLE job (
    id INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    key TEXT NOT NULL, -- what it is about, in the kind's words
    payload BLOB NOT NULL DEFAULT x'',
    every_us INTEGER NOT NULL DEFAULT 0,  -- due again that long after each end; 0: goes when done
    lease TEXT NOT NULL DEFAULT '',       -- a random text of who runs it; empty: nobody
    due_at INTEGER NOT NULL,              -- when it may be taken: with a lease, that one's end
    again_at INTEGER,                     -- queued while somebody ran it: due again then
    attempts INTEGER NOT NULL DEFAULT 0,  -- begun so often since it last ended well
    error TEXT NOT NULL DEFAULT '',       -- of the last failure
    UNIQUE (kind, key)
) STRICT;
CREATE INDEX job_by_due ON job (due_at);
