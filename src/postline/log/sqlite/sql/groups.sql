-- name: subscription
SELECT subscriptions.id, subscriptions.name, topics.name, service
FROM subscriptions JOIN topics ON topics.id = topic_id WHERE subscriptions.name = ?

-- name: hand_over
UPDATE subscriptions SET service = ?2 WHERE id = ?1

-- name: rename_subscription
UPDATE subscriptions SET name = ?2 WHERE id = ?1

-- name: remember_former_name
REPLACE INTO former_names (name, subscription_id) VALUES (?, ?)

-- name: forget_former_name
DELETE FROM former_names WHERE name = ?

-- name: renamed_to
SELECT subscriptions.name FROM former_names JOIN subscriptions ON subscriptions.id = subscription_id
WHERE former_names.name = ?

-- name: create_subscription
INSERT INTO subscriptions (name, topic_id, service, created_ms) VALUES (?, ?, ?, ?) RETURNING id

-- name: create_assignment
INSERT INTO assignments (subscription_id, partition, position) VALUES (?, ?, ?)

-- name: add_member
REPLACE INTO members (member, subscription_id, instance, joined_ms, lease_ms, formats) VALUES (?, ?, ?, ?, ?, ?)

-- name: remove_member
DELETE FROM members WHERE member = ?

-- name: members
SELECT member, lease_ms FROM members WHERE subscription_id = ? ORDER BY member

-- name: member_infos
SELECT member, lease_ms, instance, joined_ms, formats FROM members WHERE subscription_id = ? ORDER BY joined_ms, member

-- name: all_member_infos
SELECT subscription_id, member, lease_ms, instance, joined_ms, formats FROM members ORDER BY joined_ms, member

-- name: assignments
SELECT partition, epoch, ifnull(owner, ''), ifnull(wanted, ''), position, progress FROM assignments
WHERE subscription_id = ? ORDER BY partition

-- A dead owner's epoch ends at once, so that nothing of it is committed between two owners.
-- name: take_away
UPDATE assignments SET owner = '', epoch = epoch + 1 WHERE subscription_id = ? AND partition = ?

-- name: release
UPDATE assignments SET owner = '' WHERE subscription_id = ? AND partition = ? AND owner = ? AND epoch = ?

-- name: want
UPDATE assignments SET wanted = ?3 WHERE subscription_id = ?1 AND partition = ?2

-- name: acquire
UPDATE assignments SET owner = ?3, epoch = epoch + 1 WHERE subscription_id = ?1 AND partition = ?2

-- name: remove_members
DELETE FROM members WHERE subscription_id = ?

-- name: remove_assignments
DELETE FROM assignments WHERE subscription_id = ?

-- name: remove_former_names
DELETE FROM former_names WHERE subscription_id = ?

-- name: remove_subscription
DELETE FROM subscriptions WHERE id = ?
