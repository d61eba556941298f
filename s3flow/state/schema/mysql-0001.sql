-- The tables of SQLite's scripts, by the same names. DDL commits by itself here: a script that was cut
-- off in the middle is run again from its start, so every statement must bear that. Keys are VARBINARY:
-- no collation that MySQL and MariaDB have in common tells `a` from `a ` (PAD SPACE), and the usual
-- ones fold case and accents besides.
CREATE TABLE IF NOT EXISTS meta (
  name VARCHAR(200) NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY (name)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin COMMENT='s3flow';

-- Who may write: one daemon, which raises the epoch when it comes. Each of its transactions leaves its
-- serial here, so that after a lost answer it can be told whether it was committed.
CREATE TABLE IF NOT EXISTS holder (
  id TINYINT NOT NULL,
  epoch BIGINT NOT NULL,
  serial BIGINT NOT NULL,
  name VARCHAR(300) NOT NULL,
  since DOUBLE NOT NULL,
  PRIMARY KEY (id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
INSERT INTO holder (id, epoch, serial, name, since) VALUES (1, 0, 0, '', 0)
  ON DUPLICATE KEY UPDATE id = 1;

-- A flow without a name was forgotten; its rows are being removed in slices.
CREATE TABLE IF NOT EXISTS flows (
  id BIGINT NOT NULL AUTO_INCREMENT,
  name VARCHAR(200) NULL,
  fingerprint MEDIUMTEXT NOT NULL,
  adopting TINYINT NOT NULL,
  created DOUBLE NOT NULL,
  PRIMARY KEY (id),
  UNIQUE KEY flows_by_name (name)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS buckets (
  id BIGINT NOT NULL AUTO_INCREMENT,
  name VARBINARY(1024) NOT NULL,
  PRIMARY KEY (id),
  UNIQUE KEY buckets_by_name (name)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS scans (
  id BIGINT NOT NULL AUTO_INCREMENT,
  flow_id BIGINT NOT NULL,
  started DOUBLE NOT NULL,
  finished DOUBLE NULL,
  listed BIGINT NOT NULL DEFAULT 0,
  listed_bytes BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY (id),
  KEY scans_by_flow (flow_id, finished)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- A bucket may be listed in several ranges at a time, each with its own cursor: the keys with
-- start_key < key <= end_key (NULL: to the end) are merged up to last_key.
CREATE TABLE IF NOT EXISTS ranges (
  scan_id BIGINT NOT NULL,
  bucket_id BIGINT NOT NULL,
  start_key VARBINARY(3000) NOT NULL,
  last_key VARBINARY(3000) NOT NULL,
  end_key VARBINARY(3000) NULL,
  done TINYINT NOT NULL,
  PRIMARY KEY (scan_id, bucket_id, start_key)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Codes instead of words: one byte a row, "state < 10" says pending, "state < 5" that workers may take it.
CREATE TABLE IF NOT EXISTS states (
  code TINYINT NOT NULL,
  name VARCHAR(40) NOT NULL,
  outcome VARCHAR(40) NOT NULL,
  PRIMARY KEY (code)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
INSERT INTO states (code, name, outcome) VALUES
  (0, 'discovered', 'pending'),
  (3, 'transferring', 'pending'),
  (4, 'transferred', 'pending'),
  (5, 'restore_requested', 'pending'),
  (6, 'restoring', 'pending'),
  (10, 'verified', 'verified'),
  (11, 'deleted', 'deleted'),
  (12, 'skipped', 'skipped'),
  (13, 'failed', 'failed')
  ON DUPLICATE KEY UPDATE name = VALUES(name), outcome = VALUES(outcome);

-- S3's keys have at most 1,024 bytes; a store that lists longer ones must not stop the scan: they are
-- refused one by one, with a reason. 3,000 is what InnoDB's indexes hold beside the two ids.
-- There are no partial indexes here: what is to be found among millions of finished rows has a value in
-- one of the columns that are derived at the end, and all the rest NULL.
CREATE TABLE IF NOT EXISTS objects (
  id BIGINT NOT NULL,
  flow_id BIGINT NOT NULL,
  bucket_id BIGINT NOT NULL,
  object_key VARBINARY(3000) NOT NULL,
  not_utf8 TINYINT NOT NULL DEFAULT 0,
  size BIGINT NOT NULL,
  etag MEDIUMTEXT NOT NULL,
  modified BIGINT NOT NULL,
  storage_class MEDIUMTEXT NOT NULL,
  version_id MEDIUMTEXT NULL,
  state TINYINT NOT NULL,
  generation BIGINT NOT NULL DEFAULT 1,
  reason VARCHAR(200) NOT NULL DEFAULT '',
  message TEXT NOT NULL,
  method VARCHAR(60) NOT NULL DEFAULT '',
  proof VARCHAR(60) NOT NULL DEFAULT '',
  target_etag MEDIUMTEXT NOT NULL,
  dropped TEXT NOT NULL DEFAULT (''),
  attempts BIGINT NOT NULL DEFAULT 0,
  retry_at BIGINT NOT NULL DEFAULT 0,
  upload_id MEDIUMTEXT NULL,
  part_size BIGINT NULL,
  due_at BIGINT NOT NULL DEFAULT 0,
  discovered_at BIGINT NOT NULL,
  updated_at BIGINT NOT NULL,
  -- 0: nobody has touched it; 1: an upload was begun; 2: failed
  work TINYINT GENERATED ALWAYS AS (
    CASE
      WHEN state = 13 THEN 2
      WHEN state >= 10 THEN NULL
      WHEN upload_id IS NOT NULL THEN 1
      WHEN state >= 5 THEN NULL
      WHEN retry_at = 0 THEN 0
    END
  ) STORED,
  due BIGINT GENERATED ALWAYS AS (
    CASE WHEN state < 5 AND retry_at > 0 THEN retry_at END
  ) STORED,
  PRIMARY KEY (id),
  UNIQUE KEY objects_by_key (flow_id, bucket_id, object_key),
  KEY objects_work (flow_id, work, id),
  KEY objects_due (flow_id, due, id),
  KEY objects_due_at (flow_id, state, due_at)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS totals (
  flow_id BIGINT NOT NULL,
  bucket_id BIGINT NOT NULL,
  state TINYINT NOT NULL,
  reason VARCHAR(200) NOT NULL,
  method VARCHAR(60) NOT NULL,
  proof VARCHAR(60) NOT NULL,
  objects BIGINT NOT NULL,
  bytes BIGINT NOT NULL,
  PRIMARY KEY (flow_id, bucket_id, state, reason, method, proof)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS dropped (
  flow_id BIGINT NOT NULL,
  field VARCHAR(200) NOT NULL,
  objects BIGINT NOT NULL,
  PRIMARY KEY (flow_id, field)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS samples (
  flow_id BIGINT NOT NULL,
  at DOUBLE NOT NULL,
  objects BIGINT NOT NULL,
  bytes BIGINT NOT NULL,
  PRIMARY KEY (flow_id, at)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Uploads that no row will continue, because their version was superseded or is gone.
CREATE TABLE IF NOT EXISTS abandoned (
  flow_id BIGINT NOT NULL,
  upload_id VARBINARY(3000) NOT NULL,
  bucket_id BIGINT NOT NULL,
  object_key VARBINARY(3000) NOT NULL,
  PRIMARY KEY (flow_id, upload_id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- For people and their scripts; times are UTC. A key that is not UTF-8 is shown as hex:….
CREATE OR REPLACE VIEW files AS
SELECT
  flows.name AS flow,
  CONVERT(buckets.name USING utf8mb4) AS bucket,
  CASE
    WHEN o.not_utf8 THEN CONCAT('hex:', HEX(o.object_key))
    ELSE CONVERT(o.object_key USING utf8mb4)
  END AS `key`,
  states.name AS state,
  states.outcome AS outcome,
  o.reason, o.message, o.size, o.etag, o.storage_class, o.method, o.proof, o.target_etag,
  o.attempts,
  TIMESTAMP('1970-01-01') + INTERVAL (o.modified DIV 1000) SECOND AS modified,
  TIMESTAMP('1970-01-01') + INTERVAL (o.discovered_at DIV 1000) SECOND AS discovered,
  TIMESTAMP('1970-01-01') + INTERVAL (o.updated_at DIV 1000) SECOND AS updated
FROM objects AS o
JOIN flows ON flows.id = o.flow_id
JOIN buckets ON buckets.id = o.bucket_id
JOIN states ON states.code = o.state
WHERE flows.name IS NOT NULL;

CREATE OR REPLACE VIEW outcomes AS
SELECT
  flows.name AS flow,
  states.outcome AS outcome,
  t.reason AS reason,
  SUM(t.objects) AS objects,
  SUM(t.bytes) AS bytes
FROM totals AS t
JOIN flows ON flows.id = t.flow_id
JOIN states ON states.code = t.state
GROUP BY flows.name, states.outcome, t.reason
HAVING SUM(t.objects) > 0;
