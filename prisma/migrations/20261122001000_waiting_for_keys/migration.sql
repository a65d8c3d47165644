-- An event may also wait for the key by which it can be checked.
ALTER TABLE waiting_pdus DROP CONSTRAINT waiting_pdus_reason_check;
ALTER TABLE waiting_pdus ADD CONSTRAINT waiting_pdus_reason_check
  CHECK (reason IN ('join-under-way', 'missing-keys', 'missing-prev-events'));
