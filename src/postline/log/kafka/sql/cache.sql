-- name: create_meta
CREATE TABLE meta (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    topic_id TEXT NOT NULL,
    cluster_id TEXT NOT NULL,
    applied INTEGER NOT NULL DEFAULT 0,
    saved_ms INTEGER NOT NULL DEFAULT 0
)

-- With rows of their own, and the keys apart: random keys then touch few pages.
-- name: create_entries
CREATE TABLE entries (
    namespace TEXT NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (namespace, key)
)

-- name: begin_anew
INSERT INTO meta (one, topic_id, cluster_id) VALUES (1, ?, ?)

-- name: meta
SELECT topic_id, cluster_id, applied, saved_ms FROM meta

-- name: advance
UPDATE meta SET applied = ?, saved_ms = ?

-- name: delete
DELETE FROM entries WHERE namespace = ? AND key = ?

-- name: empty_namespace
DELETE FROM entries WHERE namespace = ?

-- name: empty
DELETE FROM entries

-- name: scan
SELECT key, value FROM entries WHERE namespace = ?1 AND key > ?2 ORDER BY key LIMIT ?3

-- name: scan_all
SELECT namespace, key, value FROM entries WHERE (namespace, key) > (?1, ?2) ORDER BY namespace, key LIMIT ?3

-- name: namespaces
SELECT DISTINCT namespace FROM entries
