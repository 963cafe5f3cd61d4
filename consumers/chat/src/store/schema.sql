-- Rooms are made by their first message or their first member.
CREATE TABLE rooms (
    room INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    -- The sequence number of the last message; 0 before the first.
    last_seq INTEGER NOT NULL DEFAULT 0,
    -- When the last message was stored, milliseconds since the Unix epoch.
    last_at_ms INTEGER
);

-- Kept in the order in which they are read: a page of history lies together.
CREATE TABLE messages (
    room INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    source INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    id TEXT,
    sender TEXT NOT NULL,
    text TEXT NOT NULL,
    received_ms INTEGER,
    stored_ms INTEGER NOT NULL,
    PRIMARY KEY (room, seq)
) WITHOUT ROWID;

-- The message that a record became: a record seen again finds its receipt by it.
CREATE UNIQUE INDEX messages_by_record ON messages (source, "offset");

CREATE TABLE members (
    user TEXT NOT NULL,
    room INTEGER NOT NULL,
    -- The member has read up to here.
    read_seq INTEGER NOT NULL,
    PRIMARY KEY (user, room)
) WITHOUT ROWID;

CREATE INDEX members_by_room ON members (room, user);
