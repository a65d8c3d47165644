-- Two joins of one user may be under way at once, by two clients or two processes: the end of one is not the other's.
ALTER TABLE joins_under_way ADD COLUMN attempt text NOT NULL DEFAULT '';
ALTER TABLE joins_under_way DROP CONSTRAINT joins_under_way_pkey;
ALTER TABLE joins_under_way ADD PRIMARY KEY (room_id, user_id, attempt);
