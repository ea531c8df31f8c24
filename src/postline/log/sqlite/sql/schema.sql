-- Schema of a new file, version 1. A record's id is partition id << 40 | offset.
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;

CREATE TABLE topics (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    -- The partitions' ids are first_partition_id, +1, +2, …
    first_partition_id INTEGER NOT NULL,
    partitions INTEGER NOT NULL,
    owner TEXT NOT NULL,
    key TEXT NOT NULL,
    retention_ms INTEGER,
    retention_bytes INTEGER,
    compacted INTEGER NOT NULL,
    tombstone_ms INTEGER NOT NULL,
    compact_after_ms INTEGER NOT NULL
);

CREATE TABLE partitions (
    id INTEGER PRIMARY KEY,
    topic_id INTEGER NOT NULL REFERENCES topics (id),
    partition INTEGER NOT NULL,
    -- Kept here, not taken from the records, so that offsets of deleted ones are never given again.
    next_offset INTEGER NOT NULL DEFAULT 0,
    last_timestamp INTEGER NOT NULL DEFAULT 0,
    -- Retention's cut: records below it are gone, but for those that held or dead letters name.
    start_offset INTEGER NOT NULL DEFAULT 0,
    -- How far compaction has come, and how far `bytes` has been counted.
    compacted_to INTEGER NOT NULL DEFAULT 0,
    measured_to INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE records (
    id INTEGER PRIMARY KEY,
    timestamp INTEGER NOT NULL,
    key BLOB,
    type TEXT NOT NULL,
    value BLOB,
    flags INTEGER NOT NULL,
    packed BLOB NOT NULL
);

-- Compaction's map: the newest compacted record of each key.
CREATE TABLE latest (
    partition_id INTEGER NOT NULL,
    key BLOB NOT NULL,
    id INTEGER NOT NULL,
    tombstone_at INTEGER,
    PRIMARY KEY (partition_id, key)
) WITHOUT ROWID;
CREATE INDEX latest_tombstones ON latest (partition_id, tombstone_at) WHERE tombstone_at IS NOT NULL;

-- Records whose time had come but which held or dead letters still named.
CREATE TABLE spared (id INTEGER PRIMARY KEY);

CREATE TABLE subscriptions (
    -- AUTOINCREMENT: the state of a removed one must never pass to another.
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    topic_id INTEGER NOT NULL REFERENCES topics (id),
    service TEXT NOT NULL,
    created_ms INTEGER NOT NULL
);

-- Names that a subscription had before it was renamed: nobody may create another one under them unawares.
CREATE TABLE former_names (
    name TEXT PRIMARY KEY,
    subscription_id INTEGER NOT NULL REFERENCES subscriptions (id)
) WITHOUT ROWID;

CREATE TABLE members (
    member TEXT PRIMARY KEY,
    subscription_id INTEGER NOT NULL,
    instance TEXT NOT NULL,
    joined_ms INTEGER NOT NULL,
    -- Silent for so long, it counts as hung and is removed.
    lease_ms INTEGER NOT NULL,
    -- JSON object: highest version of each state namespace that it reads.
    formats TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX members_by_subscription ON members (subscription_id);

-- One row for each partition of each subscription, made when the subscription is created.
CREATE TABLE assignments (
    subscription_id INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    position INTEGER NOT NULL,
    progress BLOB NOT NULL DEFAULT x'',
    -- Goes up with every change of owner; commits under another epoch are refused.
    epoch INTEGER NOT NULL DEFAULT 0,
    -- `members.member` that owns it, and the one that shall have it next.
    owner TEXT,
    wanted TEXT,
    PRIMARY KEY (subscription_id, partition)
) WITHOUT ROWID;

CREATE TABLE state (
    subscription_id INTEGER NOT NULL,
    partition INTEGER NOT NULL,
    namespace TEXT NOT NULL,
    key BLOB NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (subscription_id, partition, namespace, key)
) WITHOUT ROWID;

-- For people with the sqlite3 tool.
CREATE VIEW messages AS
SELECT topics.name AS topic,
    partitions.partition,
    records.id & 1099511627775 AS "offset",
    strftime('%Y-%m-%dT%H:%M:%fZ', records.timestamp / 1000.0, 'unixepoch') AS time,
    CAST(records.key AS TEXT) AS key,
    records.type,
    CAST(records.value AS TEXT) AS value
FROM records
JOIN partitions ON partitions.id = records.id >> 40
JOIN topics ON topics.id = partitions.topic_id;
