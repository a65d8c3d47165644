-- The states behind a partial room's forward extremities to which its current state lacks nothing but unknown members: who
-- places the next event need not compare them again, in whatever process.
ALTER TABLE rooms ADD COLUMN resolved_of text;
