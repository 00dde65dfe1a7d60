-- +goose Up
CREATE TABLE row (
  kind     TEXT    NOT NULL,
  key      TEXT    NOT NULL,
  parent   TEXT    NOT NULL,
  state    TEXT    NOT NULL,
  data     BLOB    NOT NULL,
  revision INTEGER NOT NULL,
  created  INTEGER NOT NULL, -- Unix nanoseconds
  updated  INTEGER NOT NULL,
  PRIMARY KEY (kind, key)
) WITHOUT ROWID;
CREATE INDEX row_parent ON row (kind, parent, created);
CREATE INDEX row_state ON row (kind, state) WHERE state <> '';

CREATE TABLE event (
  subject TEXT    NOT NULL,
  seq     INTEGER NOT NULL,
  time    INTEGER NOT NULL,
  type    TEXT    NOT NULL,
  data    BLOB    NOT NULL,
  PRIMARY KEY (subject, seq)
) WITHOUT ROWID;

CREATE TABLE revision (id INTEGER PRIMARY KEY CHECK (id = 1), last INTEGER NOT NULL);
INSERT INTO revision VALUES (1, 0);

-- +goose Down
DROP TABLE revision;
DROP TABLE event;
DROP TABLE row;
