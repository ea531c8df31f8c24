-- name: policies
SELECT partitions.id, topics.id, partition, retention_ms, retention_bytes, compacted, tombstone_ms, compact_after_ms
FROM topics JOIN partitions ON partitions.topic_id = topics.id
WHERE retention_ms IS NOT NULL OR retention_bytes IS NOT NULL OR compacted
    OR EXISTS (SELECT 1 FROM spared WHERE spared.id >= partitions.id << 40 AND spared.id < (partitions.id + 1) << 40)
ORDER BY partitions.id

-- name: progress
SELECT start_offset, next_offset, compacted_to, measured_to, bytes FROM partitions WHERE id = ?

-- name: oldest
SELECT timestamp FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT 1

-- name: sizes
SELECT id, timestamp,
    coalesce(length(key), 0) + coalesce(length(value), 0) + length(packed) + octet_length(type)
FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?

-- name: spare
INSERT OR IGNORE INTO spared VALUES (?)

-- name: forget_latest
DELETE FROM latest WHERE partition_id = ?1
    AND key IN (SELECT key FROM records WHERE id >= ?2 AND id < ?3) AND id >= ?2 AND id < ?3

-- name: delete_range
DELETE FROM records WHERE id >= ?1 AND id < ?2 AND id NOT IN (SELECT id FROM spared WHERE id >= ?1 AND id < ?2)

-- name: set_start
UPDATE partitions SET start_offset = ?2, bytes = ?3 WHERE id = ?1

-- name: set_measured
UPDATE partitions SET measured_to = ?2, bytes = ?3 WHERE id = ?1

-- name: set_compacted
UPDATE partitions SET compacted_to = ?2 WHERE id = ?1

-- name: shrink
UPDATE partitions SET bytes = bytes - ?2 WHERE id = ?1

-- name: subscriptions_of
SELECT id FROM subscriptions WHERE topic_id = ?

-- name: compactable
SELECT id, timestamp, key, value IS NULL FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?

-- name: latest_id
SELECT id FROM latest WHERE partition_id = ? AND key = ?

-- name: set_latest
REPLACE INTO latest VALUES (?, ?, ?, ?)

-- name: old_tombstones
SELECT key, id FROM latest WHERE partition_id = ? AND tombstone_at <= ? ORDER BY tombstone_at LIMIT ?

-- name: delete_latest
DELETE FROM latest WHERE partition_id = ? AND key = ?

-- name: size_of
SELECT coalesce(length(key), 0) + coalesce(length(value), 0) + length(packed) + octet_length(type)
FROM records WHERE id = ?

-- name: delete_record
DELETE FROM records WHERE id = ?

-- name: spared_after
SELECT id FROM spared WHERE id >= ? AND id < ? ORDER BY id LIMIT ?

-- name: unspare
DELETE FROM spared WHERE id = ?

-- name: next_state_owner
SELECT min(subscription_id) FROM state WHERE subscription_id > ?

-- name: subscription_exists
SELECT 1 FROM subscriptions WHERE id = ?

-- name: give_back
PRAGMA incremental_vacuum(100)

-- name: free_pages
PRAGMA freelist_count
