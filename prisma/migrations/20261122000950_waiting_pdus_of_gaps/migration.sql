-- It was not sent to us: it came with the answer to a question for another event's past.
ALTER TABLE waiting_pdus ADD COLUMN from_gap boolean NOT NULL DEFAULT false;
