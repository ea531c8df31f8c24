-- Of a copy, and of two logs beside each other: `main` is the one that lies there, `restored` the one to come.

-- name: note
INSERT OR REPLACE INTO meta VALUES (?, ?)

-- name: noted
SELECT value FROM meta WHERE key = ?

-- name: forget
DELETE FROM meta WHERE key = ?

-- name: forget_members
DELETE FROM members

-- name: free_assignments
UPDATE assignments SET owner = NULL, wanted = NULL, epoch = epoch + ?

-- name: skip_offsets
UPDATE partitions SET next_offset = next_offset + ?

-- name: integrity
PRAGMA integrity_check(10)

-- name: contents
SELECT (SELECT count(*) FROM topics), (SELECT count(*) FROM subscriptions)

-- name: attach
ATTACH ? AS restored

-- The last record that the copy has of a partition, where the other log has another one in its place.
-- name: differing
SELECT topics.name, partitions.partition, copied.id & 1099511627775
FROM restored.partitions JOIN restored.topics ON topics.id = partitions.topic_id
JOIN restored.records AS copied ON copied.id = (
    SELECT max(id) FROM restored.records WHERE id >= partitions.id << 40 AND id < (partitions.id + 1) << 40)
JOIN main.records AS there ON there.id = copied.id
WHERE (there.timestamp, there.type, there.packed) IS NOT (copied.timestamp, copied.type, copied.packed)
LIMIT 1

-- name: lost_records
SELECT topics.name, here.partition, coalesce(restored.partitions.next_offset, 0) AS first, here.next_offset,
    (SELECT count(*) FROM main.records
    WHERE id >= here.id << 40 | coalesce(restored.partitions.next_offset, 0) AND id < (here.id + 1) << 40)
FROM main.partitions AS here JOIN main.topics ON topics.id = here.topic_id
LEFT JOIN restored.topics AS copied ON copied.name = topics.name
LEFT JOIN restored.partitions ON partitions.topic_id = copied.id AND partitions.partition = here.partition
WHERE here.next_offset > first
ORDER BY topics.name, here.partition

-- name: lost_subscriptions
SELECT subscriptions.name, topics.name FROM main.subscriptions JOIN main.topics ON topics.id = topic_id
WHERE subscriptions.name NOT IN (SELECT name FROM restored.subscriptions) ORDER BY 1

-- What is handled again, and what was handled of records that the copy doesn't have.
-- name: rewound
SELECT subscriptions.name,
    sum(max(0, min(here.position, partitions.next_offset) - there.position)) AS again,
    sum(max(0, here.position - max(partitions.next_offset, there.position))) AS beyond
FROM main.assignments AS here JOIN main.subscriptions ON subscriptions.id = here.subscription_id
JOIN restored.subscriptions AS copied ON copied.name = subscriptions.name
JOIN restored.assignments AS there ON there.subscription_id = copied.id AND there.partition = here.partition
JOIN restored.partitions ON partitions.topic_id = copied.topic_id AND partitions.partition = here.partition
GROUP BY 1 HAVING again > 0 OR beyond > 0 ORDER BY 1

-- name: changed_state
SELECT subscriptions.name, count(*)
FROM main.state AS here JOIN main.subscriptions ON subscriptions.id = here.subscription_id
LEFT JOIN restored.subscriptions AS copied ON copied.name = subscriptions.name
WHERE NOT EXISTS (SELECT 1 FROM restored.state AS there
    WHERE there.subscription_id = copied.id AND there.partition = here.partition
        AND there.namespace = here.namespace AND there.key = here.key AND there.value = here.value)
GROUP BY 1

-- An offset is never given to two records, and a fence of the old log is none in the new one.
-- name: outdo_offsets
UPDATE restored.partitions AS copied SET (next_offset, last_timestamp) = (
    SELECT max(copied.next_offset, coalesce(max(here.next_offset), 0)),
        max(copied.last_timestamp, coalesce(max(here.last_timestamp), 0))
    FROM main.partitions AS here JOIN main.topics AS mine ON mine.id = here.topic_id
    JOIN restored.topics AS theirs ON theirs.name = mine.name
    WHERE theirs.id = copied.topic_id AND here.partition = copied.partition)

-- name: outdo_epochs
UPDATE restored.assignments AS copied SET epoch = (
    SELECT max(copied.epoch, coalesce(max(here.epoch), 0) + 1)
    FROM main.assignments AS here JOIN main.subscriptions AS mine ON mine.id = here.subscription_id
    JOIN restored.subscriptions AS theirs ON theirs.name = mine.name
    WHERE theirs.id = copied.subscription_id AND here.partition = copied.partition)

-- What examining a log asks for.

-- name: topic_sizes
SELECT topics.name, partitions.id, start_offset, next_offset
FROM topics JOIN partitions ON partitions.topic_id = topics.id ORDER BY topics.name, partitions.id

-- name: first_sizes
SELECT count(*), coalesce(sum(coalesce(length(key), 0) + coalesce(length(value), 0) + length(packed)), 0)
FROM (SELECT key, value, packed FROM records WHERE id >= ? AND id < ? ORDER BY id LIMIT ?)

-- name: table_sizes
SELECT name, sum(pgsize), sum(unused) FROM dbstat WHERE aggregate = TRUE GROUP BY name ORDER BY 2 DESC

-- name: state_sizes
SELECT coalesce(subscriptions.name, ''), namespace, count(*), sum(length(state.key) + length(state.value))
FROM state LEFT JOIN subscriptions ON subscriptions.id = subscription_id GROUP BY 1, 2 ORDER BY 1, 2

-- name: members
SELECT subscriptions.name, member, instance, lease_ms
FROM members JOIN subscriptions ON subscriptions.id = subscription_id ORDER BY 1, 2

-- name: ownerless
SELECT subscriptions.name, partition, owner FROM assignments JOIN subscriptions ON subscriptions.id = subscription_id
WHERE owner <> '' AND owner NOT IN (SELECT member FROM members) ORDER BY 1, 2
