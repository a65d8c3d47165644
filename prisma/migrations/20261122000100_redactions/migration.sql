-- Which event a redaction names: redactions are applied when an event is read (src/rooms/redactions.ts).
CREATE TABLE redactions (
  redaction_id text PRIMARY KEY REFERENCES events ON DELETE CASCADE,
  redacts text NOT NULL
);
CREATE INDEX redactions_redacts ON redactions (redacts);
