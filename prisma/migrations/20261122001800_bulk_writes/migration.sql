-- Tens of thousands of events and members are written at once, all of one room.

-- A row for each outlier that has no position is of no use.
ALTER TABLE events DROP CONSTRAINT events_stream_id_key;
CREATE UNIQUE INDEX events_stream_id_key ON events (stream_id) WHERE stream_id IS NOT NULL;

-- That the room is there is asked once a statement, not once a row: the same promise as the foreign keys gave, for a
-- third of the time. A room_id is never changed.
ALTER TABLE events DROP CONSTRAINT events_room_id_fkey;
ALTER TABLE current_memberships DROP CONSTRAINT current_memberships_room_id_fkey;

CREATE FUNCTION require_rooms_of_new_rows() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
  named text[] := ARRAY(SELECT DISTINCT room_id FROM new_rows);
  known integer;
BEGIN
  -- Held to the end of the transaction, so that the room can't be deleted meanwhile.
  PERFORM 1 FROM rooms WHERE room_id = ANY (named) FOR KEY SHARE;
  GET DIAGNOSTICS known = ROW_COUNT;
  IF known < cardinality(named) THEN
    RAISE EXCEPTION 'a row of % names a room that is not there', TG_TABLE_NAME
      USING ERRCODE = 'foreign_key_violation', CONSTRAINT = TG_TABLE_NAME || '_room_id';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER events_room_id AFTER INSERT ON events
  REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION require_rooms_of_new_rows();
CREATE TRIGGER current_memberships_room_id AFTER INSERT ON current_memberships
  REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION require_rooms_of_new_rows();

CREATE FUNCTION refuse_to_delete_rooms_in_use() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF EXISTS (SELECT 1 FROM events WHERE room_id = OLD.room_id)
    OR EXISTS (SELECT 1 FROM current_memberships WHERE room_id = OLD.room_id) THEN
    RAISE EXCEPTION 'room % still has events or members', OLD.room_id
      USING ERRCODE = 'foreign_key_violation', CONSTRAINT = 'rooms_in_use';
  END IF;
  RETURN NULL;
END $$;
CREATE TRIGGER rooms_in_use AFTER DELETE ON rooms FOR EACH ROW EXECUTE FUNCTION refuse_to_delete_rooms_in_use();

-- The state that an answer to /state_ids gives, once all of its events are stored and it was found to be sound.
ALTER TABLE resync_state_ids ADD COLUMN snapshot_id bigint;
