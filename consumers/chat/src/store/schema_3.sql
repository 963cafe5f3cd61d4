-- The oldest message that is kept: those before it were deleted, and the room counts on.
ALTER TABLE rooms ADD COLUMN first_seq INTEGER NOT NULL DEFAULT 1;

-- How many members a room has, so that a limit on them costs no count.
ALTER TABLE rooms ADD COLUMN members INTEGER NOT NULL DEFAULT 0;
UPDATE rooms SET members = (SELECT count(*) FROM members m WHERE m.room = rooms.room);
CREATE TRIGGER members_come AFTER INSERT ON members BEGIN
    UPDATE rooms SET members = members + 1 WHERE room = NEW.room;
END;
CREATE TRIGGER members_go AFTER DELETE ON members BEGIN
    UPDATE rooms SET members = members - 1 WHERE room = OLD.room;
END;
