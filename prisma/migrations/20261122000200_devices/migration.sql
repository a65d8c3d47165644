-- Devices of our users and of others: their keys, who was told of changes, and what is sent to them.

-- Messages for one device of ours, until its client has acknowledged them by its next /sync. Without a foreign key: its
-- check would lock a device under the stream position, while who changes a device comes to the position from there.
CREATE TABLE to_device_messages (
  message_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  stream_id bigint NOT NULL,
  user_id text NOT NULL,
  device_id text NOT NULL,
  sender text NOT NULL,
  type text NOT NULL,
  content text NOT NULL
);
CREATE INDEX to_device_messages_device ON to_device_messages (user_id, device_id, stream_id);

-- Requests to send to devices that were carried out: a repeated one does nothing.
CREATE TABLE to_device_transactions (
  user_id text NOT NULL,
  device_id text NOT NULL,
  txn_id text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (user_id, device_id, txn_id),
  FOREIGN KEY (user_id, device_id) REFERENCES devices ON DELETE CASCADE
);

-- m.direct_to_device EDUs that were taken: servers send them at least once.
CREATE TABLE received_to_device (
  origin text NOT NULL,
  message_id text NOT NULL,
  received_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (origin, message_id)
);

-- ── Keys of our users' devices ──────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE device_keys (
  user_id text NOT NULL,
  device_id text NOT NULL,
  keys text NOT NULL, -- JSON as uploaded
  PRIMARY KEY (user_id, device_id),
  FOREIGN KEY (user_id, device_id) REFERENCES devices ON DELETE CASCADE
);

CREATE TABLE one_time_keys (
  key_no bigint GENERATED ALWAYS AS IDENTITY, -- the oldest is handed out first
  user_id text NOT NULL,
  device_id text NOT NULL,
  algorithm text NOT NULL,
  key_id text NOT NULL, -- without the algorithm
  key text NOT NULL,    -- JSON as uploaded
  PRIMARY KEY (user_id, device_id, algorithm, key_id),
  FOREIGN KEY (user_id, device_id) REFERENCES devices ON DELETE CASCADE
);

-- Handed out when the one-time keys are used up, as often as asked.
CREATE TABLE fallback_keys (
  user_id text NOT NULL,
  device_id text NOT NULL,
  algorithm text NOT NULL,
  key_id text NOT NULL,
  key text NOT NULL,
  used boolean NOT NULL DEFAULT false,
  PRIMARY KEY (user_id, device_id, algorithm),
  FOREIGN KEY (user_id, device_id) REFERENCES devices ON DELETE CASCADE
);

-- Of our users, and of others as their servers told them.
CREATE TABLE cross_signing_keys (
  user_id text NOT NULL,
  usage text NOT NULL CHECK (usage IN ('master', 'self_signing', 'user_signing')),
  key text NOT NULL, -- JSON as uploaded
  PRIMARY KEY (user_id, usage)
);

-- Signatures that our users put under keys: kept apart from the keys, which their owners upload again without them.
CREATE TABLE key_signatures (
  target_user_id text NOT NULL,
  target_key text NOT NULL, -- a device's id, or the public key of a cross-signing key
  signer_user_id text NOT NULL,
  signer_key_id text NOT NULL,
  signature text NOT NULL,
  PRIMARY KEY (target_user_id, target_key, signer_user_id, signer_key_id)
);

-- ── Changes of device lists ─────────────────────────────────────────────────────────────────────────────────────────

-- When clients were last told that a user's devices or cross-signing keys have changed, of our users and of others.
CREATE TABLE device_list_changes (
  user_id text PRIMARY KEY,
  stream_id bigint NOT NULL
);
CREATE INDEX device_list_changes_stream ON device_list_changes (stream_id);

-- What other servers are told of our users' devices; kept while the resync of a partial room may find servers that
-- were not told. The newest of each user stays: the next update refers to it.
CREATE TABLE local_device_changes (
  stream_id bigint PRIMARY KEY,
  user_id text NOT NULL REFERENCES users,
  device_id text, -- null: the cross-signing keys
  prev_stream_id bigint, -- the user's change of a device before this one
  told text[] NOT NULL -- servers
);
CREATE INDEX local_device_changes_user ON local_device_changes (user_id, stream_id);

-- What a member was before a change: who shares a room only now, and who has left.
CREATE INDEX current_state_delta_stream_members ON current_state_delta_stream (room_id, state_key, stream_id)
  WHERE type = 'm.room.member';

-- ── Device lists of other servers' users ────────────────────────────────────────────────────────────────────────────

-- Of users that we share a room with, once somebody has asked for them.
CREATE TABLE remote_device_lists (
  user_id text PRIMARY KEY,
  stream_id bigint, -- their server's; null: never fetched
  stale boolean NOT NULL,
  -- Moved on when an update can't be applied: an answer that was asked for before then is not fresh.
  generation bigint NOT NULL
);

CREATE TABLE remote_devices (
  user_id text NOT NULL REFERENCES remote_device_lists ON DELETE CASCADE,
  device_id text NOT NULL,
  display_name text,
  keys text NOT NULL,
  PRIMARY KEY (user_id, device_id)
);

-- The newest updates of users that we know to share no room with, but who may be in a partial room.
CREATE TABLE pending_device_updates (
  user_id text NOT NULL,
  server_name text NOT NULL,
  edu_type text NOT NULL,
  device_id text NOT NULL, -- empty: the cross-signing keys
  content text NOT NULL,
  PRIMARY KEY (user_id, edu_type, device_id)
);
CREATE INDEX pending_device_updates_server ON pending_device_updates (server_name);
