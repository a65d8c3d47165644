-- Servers that know of an invitation or a knock, whom to tell when the user declines or takes it back.
ALTER TABLE invite_room_states ADD COLUMN told_by text[] NOT NULL DEFAULT '{}';
