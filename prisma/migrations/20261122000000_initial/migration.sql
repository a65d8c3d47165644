-- One order for everything that a client, an application service or another process is told. A position is taken as the
-- last step of a transaction, by moving this row on: it stays locked until the commit and is not seen by others before
-- it, so that nobody ever sees a later position before an earlier one (src/storage/streams.ts).
CREATE TABLE stream_position (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  position bigint NOT NULL
);
INSERT INTO stream_position (position) VALUES (0);

-- History that is fetched backwards stands before everything else: -1, -2, ...
CREATE SEQUENCE backfill_positions INCREMENT BY -1;

-- ── Rooms, events, state ────────────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE rooms (
  room_id text PRIMARY KEY,
  room_version text NOT NULL,
  -- The resolution over the forward extremities; null until a join of ours is stored.
  current_snapshot_id bigint
);

-- A snapshot is its parent's entries with its own on top. Sizes at least double towards the root, so that a chain has
-- at most log2(n) links, and one more state event costs log2(n) rows on average (src/storage/state-snapshots.ts).
CREATE TABLE state_snapshots (
  snapshot_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  room_id text NOT NULL REFERENCES rooms,
  parent_id bigint REFERENCES state_snapshots,
  entry_count integer NOT NULL CHECK (entry_count >= 0)
);
CREATE INDEX state_snapshots_room ON state_snapshots (room_id);
CREATE INDEX state_snapshots_parent ON state_snapshots (parent_id);

ALTER TABLE rooms ADD FOREIGN KEY (current_snapshot_id) REFERENCES state_snapshots;
CREATE INDEX rooms_current_snapshot ON rooms (current_snapshot_id);

-- Written in bulk together with their snapshot, hence no foreign key to check for each of 100,000 rows.
CREATE TABLE state_snapshot_entries (
  snapshot_id bigint NOT NULL,
  type text NOT NULL,
  state_key text NOT NULL,
  event_id text, -- null: the parent's entry is taken away
  PRIMARY KEY (snapshot_id, type, state_key)
);

CREATE TABLE events (
  event_id text PRIMARY KEY,
  room_id text NOT NULL REFERENCES rooms,
  type text NOT NULL,
  state_key text,
  sender text NOT NULL,
  membership text, -- of m.room.member events
  depth bigint NOT NULL,
  origin_server_ts bigint NOT NULL,
  prev_event_ids text[] NOT NULL,
  auth_event_ids text[] NOT NULL,
  -- The wire's own JSON; text, since jsonb rewrites numbers that room versions 1 to 5 hash as written.
  pdu text NOT NULL,
  -- Known only as part of some state or auth chain: in no timeline, its place in the graph unknown.
  outlier boolean NOT NULL,
  rejection text, -- the auth rule that refused it, and why; null: accepted
  soft_failed boolean NOT NULL DEFAULT false,
  -- Order of arrival; null for outliers, negative for history fetched backwards.
  stream_id bigint UNIQUE,
  state_before bigint REFERENCES state_snapshots,
  state_after bigint REFERENCES state_snapshots,
  CHECK (outlier = (stream_id IS NULL))
);
CREATE INDEX events_timeline ON events (room_id, stream_id) WHERE stream_id IS NOT NULL;
-- Who builds on an event: an event with an accepted child is no forward extremity.
CREATE INDEX events_prev_events ON events USING gin (prev_event_ids) WHERE stream_id IS NOT NULL;
CREATE INDEX events_state_before ON events (state_before) WHERE state_before IS NOT NULL;
CREATE INDEX events_state_after ON events (state_after) WHERE state_after IS NOT NULL;

CREATE TABLE forward_extremities (
  room_id text NOT NULL REFERENCES rooms,
  event_id text NOT NULL REFERENCES events,
  PRIMARY KEY (room_id, event_id)
);
CREATE INDEX forward_extremities_event ON forward_extremities (event_id);

-- The members of each room's current state, for look-ups by user and by server.
CREATE TABLE current_memberships (
  room_id text NOT NULL REFERENCES rooms,
  user_id text NOT NULL,
  server_name text NOT NULL,
  membership text NOT NULL,
  event_id text NOT NULL,
  PRIMARY KEY (room_id, user_id)
);
CREATE INDEX current_memberships_user ON current_memberships (user_id);
CREATE INDEX current_memberships_joined_servers ON current_memberships (room_id, server_name) WHERE membership = 'join';

CREATE TABLE room_aliases (
  room_alias text PRIMARY KEY,
  room_id text NOT NULL REFERENCES rooms,
  creator text NOT NULL
);
CREATE INDEX room_aliases_room ON room_aliases (room_id);

-- ── Partial state ───────────────────────────────────────────────────────────────────────────────────────────────────

-- A room is fully joined exactly when it has no row here.
CREATE TABLE partial_state_rooms (
  room_id text PRIMARY KEY REFERENCES rooms,
  device_lists_stream_id bigint NOT NULL DEFAULT 0,
  join_event_id text REFERENCES events,
  joined_via text
);
CREATE INDEX partial_state_rooms_join_event ON partial_state_rooms (join_event_id);

CREATE TABLE partial_state_rooms_servers (
  room_id text NOT NULL REFERENCES partial_state_rooms,
  server_name text NOT NULL,
  PRIMARY KEY (room_id, server_name)
);

CREATE TABLE partial_state_events (
  room_id text NOT NULL REFERENCES partial_state_rooms,
  event_id text NOT NULL UNIQUE REFERENCES events
);
CREATE INDEX partial_state_events_room ON partial_state_events (room_id);

CREATE FUNCTION partial_state_event_names_its_own_room() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NOT EXISTS (SELECT 1 FROM events WHERE event_id = NEW.event_id AND room_id = NEW.room_id) THEN
    RAISE EXCEPTION 'event % is not in room %', NEW.event_id, NEW.room_id USING ERRCODE = 'check_violation';
  END IF;
  RETURN NEW;
END $$;
CREATE TRIGGER partial_state_events_room BEFORE INSERT OR UPDATE ON partial_state_events
  FOR EACH ROW EXECUTE FUNCTION partial_state_event_names_its_own_room();

-- An answer to /state_ids that is being completed: what the state before (and the auth chain of) an event holds.
CREATE TABLE resync_state_ids (
  room_id text NOT NULL REFERENCES rooms,
  event_id text NOT NULL, -- the missing prev_event that was asked at
  server_name text NOT NULL,
  state_event_ids text[] NOT NULL,
  auth_event_ids text[] NOT NULL,
  PRIMARY KEY (room_id, event_id)
);

CREATE TABLE resync_control (
  room_id text PRIMARY KEY REFERENCES rooms ON DELETE CASCADE,
  wish text NOT NULL CHECK (wish IN ('cancelled', 'prefer-server')),
  server_name text CHECK ((wish = 'prefer-server') = (server_name IS NOT NULL)),
  by text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  why text NOT NULL DEFAULT ''
);

-- PDUs that can't be handled yet: the join is under way, or their prev_events are being fetched.
CREATE TABLE waiting_pdus (
  event_id text PRIMARY KEY,
  room_id text NOT NULL,
  origin text NOT NULL,
  pdu text NOT NULL,
  reason text NOT NULL CHECK (reason IN ('join-under-way', 'missing-prev-events')),
  received_at timestamptz NOT NULL DEFAULT now(),
  attempts integer NOT NULL DEFAULT 0,
  retry_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX waiting_pdus_room ON waiting_pdus (room_id, received_at);

CREATE TABLE joins_under_way (
  room_id text NOT NULL,
  user_id text NOT NULL,
  since timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (room_id, user_id)
);

-- ── Streams ─────────────────────────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE un_partial_stated_room_stream (
  stream_id bigint PRIMARY KEY,
  room_id text NOT NULL
);
CREATE INDEX un_partial_stated_room_stream_room ON un_partial_stated_room_stream (room_id);

CREATE TABLE un_partial_stated_event_stream (
  stream_id bigint PRIMARY KEY,
  event_id text NOT NULL,
  rejection_status_changed boolean NOT NULL
);
CREATE INDEX un_partial_stated_event_stream_event ON un_partial_stated_event_stream (event_id);

-- What became of a room's current state, key by key.
CREATE TABLE current_state_delta_stream (
  stream_id bigint NOT NULL,
  room_id text NOT NULL,
  type text NOT NULL,
  state_key text NOT NULL,
  event_id text, -- null: the key is gone
  PRIMARY KEY (stream_id, room_id, type, state_key)
);
CREATE INDEX current_state_delta_stream_room ON current_state_delta_stream (room_id, stream_id);

-- What became of our own users' memberships.
CREATE TABLE local_membership_stream (
  stream_id bigint NOT NULL,
  user_id text NOT NULL,
  room_id text NOT NULL,
  membership text NOT NULL,
  event_id text NOT NULL,
  PRIMARY KEY (user_id, room_id, stream_id)
);
CREATE INDEX local_membership_stream_position ON local_membership_stream (user_id, stream_id);

-- ── Invitations to rooms that we may not be in ──────────────────────────────────────────────────────────────────────

CREATE TABLE invite_room_states (
  event_id text PRIMARY KEY,
  stripped_state text NOT NULL
);

-- ── Federation ──────────────────────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE destinations (
  server_name text PRIMARY KEY,
  failing_since timestamptz,
  retry_at timestamptz,
  retry_interval_ms bigint,
  last_error text
);

CREATE TABLE outbox (
  destination text NOT NULL,
  stream_id bigint NOT NULL, -- of the event
  event_id text NOT NULL REFERENCES events,
  -- Given with the first attempt, so that a repeated one is known for what it is.
  txn_id text,
  PRIMARY KEY (destination, stream_id)
);
CREATE INDEX outbox_event ON outbox (event_id);

CREATE TABLE received_transactions (
  origin text NOT NULL,
  txn_id text NOT NULL,
  response text NOT NULL,
  received_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (origin, txn_id)
);

CREATE TABLE server_keys (
  server_name text NOT NULL,
  key_id text NOT NULL,
  public_key text NOT NULL, -- unpadded base64
  valid_until_ts bigint NOT NULL,
  expired_ts bigint, -- of an old key
  fetched_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (server_name, key_id)
);

-- ── Accounts ────────────────────────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE users (
  user_id text PRIMARY KEY,
  password_hash text,
  displayname text,
  avatar_url text,
  created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE devices (
  user_id text NOT NULL REFERENCES users,
  device_id text NOT NULL,
  display_name text,
  PRIMARY KEY (user_id, device_id)
);

CREATE TABLE access_tokens (
  token_hash text PRIMARY KEY, -- SHA-256 of the token, base64
  user_id text NOT NULL,
  device_id text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  FOREIGN KEY (user_id, device_id) REFERENCES devices ON DELETE CASCADE
);
CREATE INDEX access_tokens_device ON access_tokens (user_id, device_id);

-- A client's transaction ids, so that a repeated request answers with the first one's event.
CREATE TABLE client_transactions (
  user_id text NOT NULL,
  device_id text NOT NULL,
  txn_id text NOT NULL,
  event_id text NOT NULL,
  created_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (user_id, device_id, txn_id)
);
