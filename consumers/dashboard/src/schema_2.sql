-- How many devices and rooms are noted, so that a limit on them costs no count.
CREATE TABLE active_count (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    total INTEGER NOT NULL
) STRICT;
INSERT INTO active_count SELECT 1, count(*) FROM active;
CREATE TRIGGER active_come AFTER INSERT ON active BEGIN
    UPDATE active_count SET total = total + 1;
END;
CREATE TRIGGER active_go AFTER DELETE ON active BEGIN
    UPDATE active_count SET total = total - 1;
END;
