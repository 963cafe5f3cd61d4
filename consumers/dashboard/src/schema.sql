-- Messages and bytes of payload counted, by the first levels of the MQTT topic.
CREATE TABLE prefixes (
    prefix   TEXT    PRIMARY KEY,
    messages INTEGER NOT NULL,
    bytes    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Messages by the time from their receipt to being counted, as the histogram tells times apart.
CREATE TABLE latencies (
    micros   INTEGER PRIMARY KEY,
    messages INTEGER NOT NULL
) STRICT;

-- Who was heard of lately. Rows older than the window are deleted.
CREATE TABLE active (
    kind    INTEGER NOT NULL,
    name    TEXT    NOT NULL,
    seen_ms INTEGER NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX active_by_time ON active (kind, seen_ms);
