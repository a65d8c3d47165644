-- To whom each event of ours went while its room was partial. When the full state is known it tells who was missed and
-- who should not have had it; until then, which servers may ask for the event.
CREATE TABLE own_event_destinations (
  event_id text PRIMARY KEY REFERENCES events,
  room_id text NOT NULL REFERENCES rooms,
  stream_id bigint NOT NULL, -- of the event
  servers text[] NOT NULL
);
CREATE INDEX own_event_destinations_room ON own_event_destinations (room_id, stream_id);

-- Events of ours that went to a server of which no member was joined at the event, as the full state has shown.
CREATE TABLE misdirected_events (
  event_id text NOT NULL REFERENCES events,
  server_name text NOT NULL,
  room_id text NOT NULL REFERENCES rooms,
  found_at timestamptz NOT NULL DEFAULT now(),
  PRIMARY KEY (event_id, server_name)
);
CREATE INDEX misdirected_events_room ON misdirected_events (room_id, server_name);

-- An operator's wish that nothing of a room be kept; it is stored before our users leave.
CREATE TABLE room_purges (
  room_id text PRIMARY KEY REFERENCES rooms ON DELETE CASCADE,
  by text NOT NULL,
  at timestamptz NOT NULL DEFAULT now(),
  why text NOT NULL DEFAULT '',
  -- Since when nothing is left but what other servers and our own clients have still to be told.
  purged_at timestamptz
);
