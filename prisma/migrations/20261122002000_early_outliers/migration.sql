-- The outliers that large answers to joins leave before it is known whether these succeed. Where a join fails, they are
-- found by their ids: no index of all outliers by room has to be kept for that.
CREATE TABLE early_outliers (
  chunk_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  room_id text NOT NULL,
  event_ids text[] NOT NULL
);
CREATE INDEX early_outliers_room ON early_outliers (room_id);
