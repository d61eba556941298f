-- A bucket may be listed in several ranges at a time, each with its own cursor: the keys with
-- start_key < key <= end_key (NULL: to the end) are merged up to last_key.
CREATE TABLE ranges (
  scan_id INTEGER NOT NULL,
  bucket_id INTEGER NOT NULL,
  start_key BLOB NOT NULL,
  last_key BLOB NOT NULL,
  end_key BLOB,
  done INTEGER NOT NULL,
  PRIMARY KEY (scan_id, bucket_id, start_key)
) WITHOUT ROWID;
INSERT INTO ranges SELECT scan_id, bucket_id, x'', last_key, NULL, done FROM cursors;
DROP TABLE cursors;
