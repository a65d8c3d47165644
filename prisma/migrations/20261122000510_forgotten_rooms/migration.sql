-- Rooms that users have left and want to see no more: up to which change of their membership. A later one, such as an
-- invitation, brings the room back.
CREATE TABLE forgotten_rooms (
  user_id text NOT NULL,
  room_id text NOT NULL,
  stream_id bigint NOT NULL,
  PRIMARY KEY (user_id, room_id)
);
CREATE INDEX forgotten_rooms_room ON forgotten_rooms (room_id);
