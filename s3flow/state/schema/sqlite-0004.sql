-- Which way a flow's objects of a source bucket go, and why: whose credentials ask for copies inside the
-- store, or that bytes are streamed. It is looked at anew at "expires" (0: never), and when the
-- configuration of the endpoints is another than when it was decided.
CREATE TABLE verdicts (
  flow_id INTEGER NOT NULL,
  bucket TEXT NOT NULL,
  what TEXT NOT NULL,
  way TEXT NOT NULL,
  reason TEXT NOT NULL,
  decided REAL NOT NULL,
  expires REAL NOT NULL,
  PRIMARY KEY (flow_id, bucket, what)
) WITHOUT ROWID;
