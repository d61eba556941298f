-- Keys are BLOBs and so compare bytewise: case, composed and decomposed accents, trailing spaces
-- and NUL all tell keys apart.
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

-- A flow without a name was forgotten; its rows are being removed in slices.
CREATE TABLE flows (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT UNIQUE,
  fingerprint TEXT NOT NULL,
  adopting INTEGER NOT NULL,
  created REAL NOT NULL
);

CREATE TABLE buckets (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);

CREATE TABLE scans (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  flow_id INTEGER NOT NULL,
  started REAL NOT NULL,
  finished REAL,
  listed INTEGER NOT NULL DEFAULT 0,
  listed_bytes INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX scans_by_flow ON scans (flow_id, finished);

CREATE TABLE cursors (
  scan_id INTEGER NOT NULL,
  bucket_id INTEGER NOT NULL,
  last_key BLOB NOT NULL,
  done INTEGER NOT NULL,
  PRIMARY KEY (scan_id, bucket_id)
) WITHOUT ROWID;

-- Codes instead of words: one byte a row, and "state < 10" says pending in every index below.
CREATE TABLE states (code INTEGER PRIMARY KEY, name TEXT NOT NULL, outcome TEXT NOT NULL);
INSERT INTO states (code, name, outcome) VALUES
  (0, 'discovered', 'pending'),
  (1, 'restore_requested', 'pending'),
  (2, 'restoring', 'pending'),
  (3, 'transferring', 'pending'),
  (4, 'transferred', 'pending'),
  (10, 'verified', 'verified'),
  (11, 'deleted', 'deleted'),
  (12, 'skipped', 'skipped'),
  (13, 'failed', 'failed');

CREATE TABLE objects (
  id INTEGER PRIMARY KEY,
  flow_id INTEGER NOT NULL,
  bucket_id INTEGER NOT NULL,
  object_key BLOB NOT NULL,
  not_utf8 INTEGER NOT NULL DEFAULT 0,
  size INTEGER NOT NULL,
  etag TEXT NOT NULL,
  modified INTEGER NOT NULL,
  storage_class TEXT NOT NULL,
  version_id TEXT,
  state INTEGER NOT NULL,
  generation INTEGER NOT NULL DEFAULT 1,
  reason TEXT NOT NULL DEFAULT '',
  message TEXT NOT NULL DEFAULT '',
  method TEXT NOT NULL DEFAULT '',
  proof TEXT NOT NULL DEFAULT '',
  target_etag TEXT NOT NULL DEFAULT '',
  dropped TEXT NOT NULL DEFAULT '',
  attempts INTEGER NOT NULL DEFAULT 0,
  retry_at INTEGER NOT NULL DEFAULT 0,
  upload_id TEXT,
  part_size INTEGER,
  discovered_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  UNIQUE (flow_id, bucket_id, object_key)
);

-- Partial, so that work is found by looking at what is pending, however many rows are done.
-- Every index ends with the id: entries of one flow are in the order of discovery.
CREATE INDEX objects_fresh ON objects (flow_id)
  WHERE state < 10 AND retry_at = 0 AND upload_id IS NULL;
CREATE INDEX objects_waiting ON objects (flow_id, retry_at) WHERE state < 10 AND retry_at > 0;
CREATE INDEX objects_interrupted ON objects (flow_id) WHERE state < 10 AND upload_id IS NOT NULL;
CREATE INDEX objects_failed ON objects (flow_id) WHERE state = 13;

CREATE TABLE totals (
  flow_id INTEGER NOT NULL,
  bucket_id INTEGER NOT NULL,
  state INTEGER NOT NULL,
  reason TEXT NOT NULL,
  method TEXT NOT NULL,
  proof TEXT NOT NULL,
  objects INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  PRIMARY KEY (flow_id, bucket_id, state, reason, method, proof)
) WITHOUT ROWID;

CREATE TABLE dropped (
  flow_id INTEGER NOT NULL,
  field TEXT NOT NULL,
  objects INTEGER NOT NULL,
  PRIMARY KEY (flow_id, field)
) WITHOUT ROWID;

CREATE TABLE samples (
  flow_id INTEGER NOT NULL,
  at REAL NOT NULL,
  objects INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  PRIMARY KEY (flow_id, at)
) WITHOUT ROWID;

-- Uploads that no row will continue, because their version was superseded or is gone.
CREATE TABLE abandoned (
  flow_id INTEGER NOT NULL,
  upload_id TEXT NOT NULL,
  bucket_id INTEGER NOT NULL,
  object_key BLOB NOT NULL,
  PRIMARY KEY (flow_id, upload_id)
) WITHOUT ROWID;

-- For people and their scripts. A key that is not UTF-8 is shown as hex:….
CREATE VIEW files AS
SELECT
  flows.name AS flow,
  buckets.name AS bucket,
  CASE WHEN o.not_utf8 THEN 'hex:' || hex(o.object_key) ELSE CAST(o.object_key AS TEXT) END AS key,
  states.name AS state,
  states.outcome AS outcome,
  o.reason, o.message, o.size, o.etag, o.storage_class, o.method, o.proof, o.target_etag,
  o.attempts,
  datetime(o.modified / 1000, 'unixepoch') AS modified,
  datetime(o.discovered_at / 1000, 'unixepoch') AS discovered,
  datetime(o.updated_at / 1000, 'unixepoch') AS updated
FROM objects AS o
JOIN flows ON flows.id = o.flow_id
JOIN buckets ON buckets.id = o.bucket_id
JOIN states ON states.code = o.state
WHERE flows.name IS NOT NULL;

CREATE VIEW outcomes AS
SELECT
  flows.name AS flow,
  states.outcome AS outcome,
  t.reason AS reason,
  sum(t.objects) AS objects,
  sum(t.bytes) AS bytes
FROM totals AS t
JOIN flows ON flows.id = t.flow_id
JOIN states ON states.code = t.state
GROUP BY flows.name, states.outcome, t.reason
HAVING sum(t.objects) > 0;
