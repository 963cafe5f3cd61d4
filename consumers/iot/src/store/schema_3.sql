-- Values may be numbers (REAL), booleans (INTEGER, 0 or 1) and texts (TEXT), and a record may raise several alerts. SQLite cannot
-- change a column's type or a primary key, so the tables are written anew.
CREATE TABLE series_new (
    id               INTEGER PRIMARY KEY,
    device           TEXT    NOT NULL,
    metric           TEXT    NOT NULL,
    last_value       ANY     NOT NULL,
    last_at_ms       INTEGER NOT NULL,
    last_received_ms INTEGER NOT NULL,
    samples          INTEGER NOT NULL,
    state            INTEGER NOT NULL,
    UNIQUE (device, metric)
) STRICT;
INSERT INTO series_new SELECT * FROM series;
DROP TABLE series;
ALTER TABLE series_new RENAME TO series;

CREATE TABLE samples_new (
    series   INTEGER NOT NULL,
    at_ms    INTEGER NOT NULL,
    source   INTEGER NOT NULL,
    "offset" INTEGER NOT NULL,
    value    ANY     NOT NULL,
    PRIMARY KEY (series, at_ms, source, "offset")
) STRICT, WITHOUT ROWID;
INSERT INTO samples_new SELECT * FROM samples;
DROP TABLE samples;
ALTER TABLE samples_new RENAME TO samples;

CREATE TABLE alerts_new (
    source    INTEGER NOT NULL,
    "offset"  INTEGER NOT NULL,
    series    INTEGER NOT NULL,
    kind      INTEGER NOT NULL,
    value     REAL    NOT NULL,
    threshold REAL    NOT NULL,
    at_ms     INTEGER NOT NULL,
    PRIMARY KEY (source, "offset", series)
) STRICT, WITHOUT ROWID;
INSERT INTO alerts_new SELECT * FROM alerts;
DROP TABLE alerts;
ALTER TABLE alerts_new RENAME TO alerts;
CREATE INDEX alerts_of_series ON alerts (series, at_ms);
CREATE INDEX alerts_by_time ON alerts (at_ms);
