-- Which events a redaction names, in its content or at its top: which of the two counts is up to the room version.
-- Redactions are applied when an event is read (src/rooms/redactions.ts).
CREATE TABLE redactions (
  redaction_id text NOT NULL REFERENCES events ON DELETE CASCADE,
  redacts text NOT NULL,
  PRIMARY KEY (redaction_id, redacts)
);
CREATE INDEX redactions_redacts ON redactions (redacts);
