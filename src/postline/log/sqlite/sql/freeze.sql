-- While these triggers are there nothing changes the log's content, whichever process asks.
CREATE TRIGGER frozen_records BEFORE INSERT ON records
BEGIN SELECT RAISE(ABORT, 'postline: frozen by a migration'); END;
CREATE TRIGGER frozen_removals BEFORE DELETE ON records
BEGIN SELECT RAISE(ABORT, 'postline: frozen by a migration'); END;
CREATE TRIGGER frozen_topics BEFORE INSERT ON topics
BEGIN SELECT RAISE(ABORT, 'postline: frozen by a migration'); END;
CREATE TRIGGER frozen_topic_settings BEFORE UPDATE ON topics
BEGIN SELECT RAISE(ABORT, 'postline: frozen by a migration'); END;
CREATE TRIGGER frozen_subscriptions BEFORE INSERT ON subscriptions
BEGIN SELECT RAISE(ABORT, 'postline: frozen by a migration'); END;
CREATE TRIGGER frozen_subscription_names BEFORE UPDATE ON subscriptions
BEGIN SELECT RAISE(ABORT, 'postline: frozen by a migration'); END;
CREATE TRIGGER frozen_subscription_removals BEFORE DELETE ON subscriptions
BEGIN SELECT RAISE(ABORT, 'postline: frozen by a migration'); END;
CREATE TRIGGER frozen_members BEFORE INSERT ON members
BEGIN SELECT RAISE(ABORT, 'postline: frozen by a migration'); END;
CREATE TRIGGER frozen_positions BEFORE UPDATE OF position, progress ON assignments
BEGIN SELECT RAISE(ABORT, 'postline: frozen by a migration'); END;
CREATE TRIGGER frozen_state BEFORE INSERT ON state
BEGIN SELECT RAISE(ABORT, 'postline: frozen by a migration'); END;
CREATE TRIGGER frozen_state_removals BEFORE DELETE ON state
BEGIN SELECT RAISE(ABORT, 'postline: frozen by a migration'); END;
