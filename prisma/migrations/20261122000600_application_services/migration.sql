-- How far each application service has been told of what happens, and the transaction that is under way. Whatever a
-- service misses while it is down is this one row: the events are read when it is back.
CREATE TABLE appservice_pushes (
  appservice_id text PRIMARY KEY,
  -- All of the stream up to here is acknowledged, and so many items of the position behind it: a resync tells more at
  -- one position than a transaction may hold.
  position bigint NOT NULL,
  items integer NOT NULL DEFAULT 0,
  -- Begun and not acknowledged; stored before it is sent, so that a repetition says the same under the same id. Its
  -- events are a copy, which a purge of their room leaves.
  txn_id text,
  txn_body text,
  txn_position bigint,
  txn_items integer,
  failing_since timestamptz,
  retry_at timestamptz,
  retry_interval_ms bigint,
  last_error text,
  CHECK ((txn_id IS NULL) = (txn_body IS NULL) AND (txn_id IS NULL) = (txn_position IS NULL)
    AND (txn_id IS NULL) = (txn_items IS NULL))
);

-- Who of our users was in a room at a position, and what changed behind one.
CREATE INDEX local_membership_stream_room ON local_membership_stream (room_id, stream_id);
CREATE INDEX local_membership_stream_order ON local_membership_stream (stream_id);
CREATE INDEX typing_rooms_stream ON typing_rooms (stream_id);
CREATE INDEX receipts_stream ON receipts (stream_id);
