-- Replies to commands that this store does not have: another one gave them, or they were deleted.
CREATE TABLE stray_replies (
    source   INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    id       TEXT    NOT NULL,
    device   TEXT    NOT NULL,
    command  TEXT    NOT NULL,
    ok       INTEGER NOT NULL,
    result   TEXT,
    at_ms    INTEGER NOT NULL,
    PRIMARY KEY (source, "offset")
) STRICT, WITHOUT ROWID;
CREATE INDEX stray_replies_by_id ON stray_replies (id);
CREATE INDEX stray_replies_by_time ON stray_replies (at_ms);

-- Commands that a device has not answered, by the time at which they expire. 1: sent.
CREATE INDEX commands_unanswered ON commands (expires_ms) WHERE status = 1;
