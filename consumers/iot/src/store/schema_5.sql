-- Readings of a series that were deleted: the others are those that are kept.
ALTER TABLE series ADD COLUMN forgotten INTEGER NOT NULL DEFAULT 0;
UPDATE series SET forgotten = max(0, samples - (SELECT count(*) FROM samples s WHERE s.series = series.id));

-- How many devices have series, so that a limit on them costs no count.
CREATE TABLE device_count (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    devices INTEGER NOT NULL
) STRICT;
INSERT INTO device_count SELECT 1, count(DISTINCT device) FROM series;
CREATE TRIGGER devices_come AFTER INSERT ON series
WHEN NOT EXISTS (SELECT 1 FROM series WHERE device = NEW.device AND id <> NEW.id) BEGIN
    UPDATE device_count SET devices = devices + 1;
END;
CREATE TRIGGER devices_go AFTER DELETE ON series
WHEN NOT EXISTS (SELECT 1 FROM series WHERE device = OLD.device) BEGIN
    UPDATE device_count SET devices = devices - 1;
END;

-- What is over is looked for by it.
CREATE INDEX commands_by_expiry ON commands (expires_ms);
