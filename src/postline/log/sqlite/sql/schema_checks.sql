-- What is asked of a file before anything is known of it.

-- name: objects
SELECT count(*) FROM sqlite_schema

-- name: min_reader_version
SELECT value FROM meta WHERE key = 'min_reader_version'

-- name: set_min_reader_version
INSERT OR REPLACE INTO meta VALUES ('min_reader_version', ?)
