-- What nodes report of a command: the furthest that one of them reported, as JSON. Statuses 5: nobody received it, 6: it waits in
-- a session, 7: it was sent to the device.
ALTER TABLE commands ADD COLUMN report TEXT;

-- Commands that no device got yet, by the time at which they expire.
DROP INDEX commands_unanswered;
CREATE INDEX commands_undelivered ON commands (expires_ms) WHERE status IN (1, 5, 6);
