-- Ephemeral data units for other servers. They travel in the transactions of the outbox, under the same ids.
CREATE TABLE outbox_edus (
  edu_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- in the order of sending
  destination text NOT NULL,
  edu_type text NOT NULL,
  content text NOT NULL,
  -- An entry that is not under way is replaced by a newer one of the same key.
  replace_key text,
  -- Given with the first attempt, so that a repeated one is known for what it is.
  txn_id text
);
CREATE INDEX outbox_edus_destination ON outbox_edus (destination, edu_id);
CREATE UNIQUE INDEX outbox_edus_replace_key ON outbox_edus (destination, replace_key) WHERE txn_id IS NULL;

-- Who is typing, of our users and others'.
CREATE TABLE typing_users (
  room_id text NOT NULL,
  user_id text NOT NULL,
  expires_at timestamptz NOT NULL,
  PRIMARY KEY (room_id, user_id)
);
CREATE INDEX typing_users_expires_at ON typing_users (expires_at);

-- When the list of those who type in a room has changed last, also to nobody.
CREATE TABLE typing_rooms (
  room_id text PRIMARY KEY,
  stream_id bigint NOT NULL
);

CREATE TABLE receipts (
  room_id text NOT NULL,
  user_id text NOT NULL,
  receipt_type text NOT NULL,
  thread_id text NOT NULL, -- empty for a receipt of no thread
  server_name text NOT NULL, -- of the user
  event_id text NOT NULL,
  ts bigint NOT NULL,
  stream_id bigint NOT NULL,
  PRIMARY KEY (room_id, user_id, receipt_type, thread_id)
);
CREATE INDEX receipts_room ON receipts (room_id, stream_id);
CREATE INDEX receipts_server ON receipts (room_id, server_name);

CREATE TABLE presence (
  user_id text PRIMARY KEY,
  server_name text NOT NULL, -- of the user
  presence text NOT NULL CHECK (presence IN ('online', 'unavailable', 'offline')),
  status_msg text,
  last_active_at timestamptz NOT NULL,
  currently_active boolean NOT NULL,
  -- Offline from then on, unless heard of before.
  online_until timestamptz NOT NULL,
  -- When other servers were told, of a user of ours.
  told_at timestamptz,
  stream_id bigint NOT NULL
);
CREATE INDEX presence_stream ON presence (stream_id);
CREATE INDEX presence_server ON presence (server_name);
CREATE INDEX presence_online_until ON presence (online_until) WHERE presence <> 'offline';

-- What clients keep for themselves.
CREATE TABLE account_data (
  user_id text NOT NULL,
  room_id text NOT NULL, -- empty for what belongs to no room
  type text NOT NULL,
  content text NOT NULL,
  stream_id bigint NOT NULL,
  PRIMARY KEY (user_id, room_id, type)
);
CREATE INDEX account_data_stream ON account_data (user_id, stream_id);
CREATE INDEX account_data_room ON account_data (room_id);
