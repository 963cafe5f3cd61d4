-- `source` stands for a Kafka partition, as the runtime numbers them in store_progress.

-- A metric of a device: its last value in the order of the log, and on which side of its thresholds it is.
CREATE TABLE series (
    id               INTEGER PRIMARY KEY,
    device           TEXT    NOT NULL,
    metric           TEXT    NOT NULL,
    last_value       REAL    NOT NULL,
    last_at_ms       INTEGER NOT NULL,
    last_received_ms INTEGER NOT NULL,
    samples          INTEGER NOT NULL,
    state            INTEGER NOT NULL,
    UNIQUE (device, metric)
) STRICT;

-- Clustered by series and time, which is how it is read.
CREATE TABLE samples (
    series   INTEGER NOT NULL,
    at_ms    INTEGER NOT NULL,
    source   INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    value    REAL    NOT NULL,
    PRIMARY KEY (series, at_ms, source, "offset")
) STRICT, WITHOUT ROWID;

CREATE TABLE rules (
    metric      TEXT    PRIMARY KEY,
    above       REAL,
    below       REAL,
    hysteresis  REAL    NOT NULL,
    from_config INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE alerts (
    source    INTEGER NOT NULL,
    "offset"  INTEGER NOT NULL,
    series    INTEGER NOT NULL,
    kind      INTEGER NOT NULL,
    value     REAL    NOT NULL,
    threshold REAL    NOT NULL,
    at_ms     INTEGER NOT NULL,
    PRIMARY KEY (source, "offset")
) STRICT, WITHOUT ROWID;
CREATE INDEX alerts_of_series ON alerts (series, at_ms);
CREATE INDEX alerts_by_time ON alerts (at_ms);

CREATE TABLE commands (
    seq              INTEGER PRIMARY KEY,
    id               TEXT    NOT NULL UNIQUE,
    device           TEXT    NOT NULL,
    command          TEXT    NOT NULL,
    args             TEXT    NOT NULL,
    status           INTEGER NOT NULL,
    created_ms       INTEGER NOT NULL,
    expires_ms       INTEGER NOT NULL,
    claimed_until_ms INTEGER NOT NULL,
    sent_ms          INTEGER,
    failure          TEXT,
    ok               INTEGER,
    result           TEXT,
    replied_ms       INTEGER
) STRICT;
CREATE INDEX commands_of_device ON commands (device, seq);
CREATE INDEX commands_by_status ON commands (status, seq);
