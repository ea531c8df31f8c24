-- name: mark
SELECT value FROM meta WHERE key = 'migration'

-- name: set_mark
REPLACE INTO meta (key, value) VALUES ('migration', ?)

-- name: drop_mark
DELETE FROM meta WHERE key = 'migration'

-- name: frozen
SELECT 1 FROM sqlite_schema WHERE type = 'trigger' AND name = 'frozen_records'

-- name: members
SELECT member FROM members

-- name: subscriptions
SELECT subscriptions.id, subscriptions.name, topics.name, service, created_ms
FROM subscriptions JOIN topics ON topics.id = topic_id ORDER BY subscriptions.name

-- name: former_names
SELECT name FROM former_names WHERE subscription_id = ? ORDER BY name

-- name: positions
SELECT position, progress, epoch FROM assignments WHERE subscription_id = ? ORDER BY partition

-- name: state_after
SELECT namespace, key, value FROM state
WHERE subscription_id = ?1 AND partition = ?2 AND (namespace, key) > (?3, ?4)
ORDER BY namespace, key LIMIT ?5

-- name: begin
UPDATE partitions SET start_offset = ?2, next_offset = ?2 WHERE id = ?1 AND next_offset = 0

-- name: reach
UPDATE partitions SET next_offset = ?2, last_timestamp = max(last_timestamp, ?3) WHERE id = ?1

-- name: keep
INSERT OR IGNORE INTO records VALUES (?, ?, ?, ?, ?, ?, ?)

-- name: create_assignment
INSERT INTO assignments (subscription_id, partition, position, progress, epoch) VALUES (?, ?, ?, ?, ?)

-- name: remove_assignments
DELETE FROM assignments WHERE subscription_id = ?

-- name: remove_records_step
DELETE FROM records WHERE id IN (SELECT id FROM records WHERE id >= ? AND id < ? LIMIT ?)

-- name: remove_spared
DELETE FROM spared WHERE id >= ? AND id < ?

-- name: remove_partitions
DELETE FROM partitions WHERE topic_id = ?

-- name: remove_topic
DELETE FROM topics WHERE id = ?
