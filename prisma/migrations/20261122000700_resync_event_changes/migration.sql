-- What became of an event when its room's full state was known: which auth rule refuses it now, or refused it before.
CREATE TABLE resync_event_changes (
  event_id text NOT NULL REFERENCES events,
  stream_id bigint NOT NULL,
  room_id text NOT NULL REFERENCES rooms,
  change text NOT NULL CHECK (change IN ('rejected', 'accepted', 'soft-failed')),
  rule text NOT NULL,
  reason text NOT NULL,
  at timestamptz NOT NULL,
  PRIMARY KEY (event_id, stream_id)
);
CREATE INDEX resync_event_changes_room ON resync_event_changes (room_id, stream_id);

-- What held the key until then: where nothing has taken its place, a client is told that this is gone.
ALTER TABLE current_state_delta_stream ADD COLUMN previous_event_id text;
