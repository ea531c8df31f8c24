-- name: read
SELECT id & 1099511627775, timestamp, key, type, value, flags, packed
FROM records
WHERE id >= max(?2, (SELECT ?1 << 40 | start_offset FROM partitions WHERE id = ?1)) AND id < (?1 + 1) << 40
ORDER BY id
LIMIT ?3

-- name: read_some
SELECT id & 1099511627775, timestamp, key, type, value, flags, packed FROM records WHERE id

-- name: read_stretch
SELECT id & 1099511627775, timestamp, key, type, value, flags, packed FROM records
WHERE id BETWEEN ? AND ? ORDER BY id

-- name: size_between
SELECT coalesce(sum(coalesce(length(key), 0) + coalesce(length(value), 0) + length(packed) + octet_length(type)), 0)
FROM records WHERE id >= ? AND id < ?

-- name: topic_entry
SELECT id, first_partition_id, partitions FROM topics WHERE name = ?

-- name: topics
SELECT name, partitions, owner, key, retention_ms, retention_bytes, compacted, tombstone_ms, compact_after_ms
FROM topics ORDER BY name

-- name: topic
SELECT name, partitions, owner, key, retention_ms, retention_bytes, compacted, tombstone_ms, compact_after_ms
FROM topics WHERE name = ?

-- name: topic_names
SELECT first_partition_id, partitions, name FROM topics

-- name: create_topic
INSERT INTO topics (name, first_partition_id, partitions, owner, key,
    retention_ms, retention_bytes, compacted, tombstone_ms, compact_after_ms)
VALUES (?, (SELECT coalesce(max(id), 0) + 1 FROM partitions), ?, ?, ?, ?, ?, ?, ?, ?)
RETURNING id, first_partition_id

-- name: create_partition
INSERT INTO partitions (id, topic_id, partition) VALUES (?, ?, ?)

-- name: alter_topic
UPDATE topics SET owner = ?2, retention_ms = ?3, retention_bytes = ?4, compacted = ?5,
    tombstone_ms = ?6, compact_after_ms = ?7
WHERE name = ?1

-- name: forget_measures
UPDATE partitions SET measured_to = 0, bytes = 0 WHERE topic_id = (SELECT id FROM topics WHERE name = ?)

-- name: bounds
SELECT start_offset, next_offset FROM partitions WHERE id >= ?1 AND id < ?2 ORDER BY id

-- name: all_bounds
SELECT topics.name, start_offset, next_offset FROM partitions JOIN topics ON topics.id = topic_id ORDER BY partitions.id

-- name: head
SELECT next_offset, last_timestamp FROM partitions WHERE id = ?

-- The rows exist, so it only ever updates.
-- name: advance
INSERT INTO partitions (id, topic_id, partition, next_offset, last_timestamp) VALUES (…)
ON CONFLICT (id) DO UPDATE SET next_offset = excluded.next_offset, last_timestamp = excluded.last_timestamp

-- name: first_at_or_after
SELECT id & 1099511627775, timestamp FROM records WHERE id >= ?1 AND id < ?2 ORDER BY id LIMIT 1

-- name: subscriptions
SELECT subscriptions.name, topics.name, service, created_ms
FROM subscriptions JOIN topics ON topics.id = topic_id ORDER BY subscriptions.name

-- name: subscription
SELECT id, topic_id, service FROM subscriptions WHERE name = ?

-- name: subscription_partitions
SELECT partition, position, progress, epoch, coalesce(owner, '') FROM assignments
WHERE subscription_id = ? ORDER BY partition

-- name: all_subscription_partitions
SELECT subscription_id, partition, position, progress, epoch, coalesce(owner, '') FROM assignments
ORDER BY subscription_id, partition

-- name: survey_subscriptions
SELECT subscriptions.id, subscriptions.name, topics.name, service, created_ms
FROM subscriptions JOIN topics ON topics.id = topic_id ORDER BY subscriptions.name

-- name: remove_state_step
DELETE FROM state WHERE (subscription_id, partition, namespace, key) IN (
    SELECT subscription_id, partition, namespace, key FROM state WHERE subscription_id = ?1 LIMIT ?2)

-- name: commit_position
UPDATE assignments SET position = ?4, progress = ?5 WHERE subscription_id = ?1 AND partition = ?2 AND epoch = ?3

-- Ends with IN (…), for as many keys as are asked for.
-- name: state_get
SELECT key, value FROM state WHERE subscription_id = ? AND partition = ? AND namespace = ? AND key

-- name: state_scan
SELECT key, value FROM state WHERE subscription_id = ? AND partition = ? AND namespace = ? AND key > ?
ORDER BY key LIMIT ?

-- name: state_delete
DELETE FROM state WHERE subscription_id = ? AND partition = ? AND namespace = ? AND key

-- name: state_clear
DELETE FROM state WHERE subscription_id = ? AND partition = ? AND namespace = ?

-- (…) stands for as many rows as are inserted at once, here and in the next.
-- name: insert_records
INSERT INTO records VALUES (…)

-- name: state_put
REPLACE INTO state VALUES (…)
