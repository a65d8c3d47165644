-- No other request has failed since: keys may be asked for all the same.
ALTER TABLE destinations ADD COLUMN sends_only boolean NOT NULL DEFAULT false;
