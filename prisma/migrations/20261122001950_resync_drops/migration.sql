-- Partial events of which an operator has said that nobody can give the state before them: their next repair rejects them.
CREATE TABLE resync_drops (
  event_id text PRIMARY KEY REFERENCES partial_state_events (event_id) ON DELETE CASCADE,
  room_id text NOT NULL,
  by text NOT NULL,
  at timestamptz NOT NULL,
  why text NOT NULL
);
CREATE INDEX resync_drops_room ON resync_drops (room_id);
