-- The last row of each flow's audit trail. It outlives the flow: of what was forgotten, too, it must be
-- possible to say what it did.
CREATE TABLE chains (
  id INTEGER PRIMARY KEY,
  flow TEXT NOT NULL UNIQUE,
  seq INTEGER NOT NULL,
  hash BLOB NOT NULL
);

-- Nothing changes a row once it is there, or takes it away. What its hash is made of: see audit.py.
CREATE TABLE audit (
  chain_id INTEGER NOT NULL,
  seq INTEGER NOT NULL,
  at INTEGER NOT NULL,
  fact INTEGER NOT NULL,
  bucket_id INTEGER NOT NULL,
  object_key BLOB NOT NULL,
  size INTEGER NOT NULL,
  etag TEXT NOT NULL,
  target_etag TEXT NOT NULL,
  version_id TEXT NOT NULL,
  method TEXT NOT NULL,
  proof TEXT NOT NULL,
  reason TEXT NOT NULL,
  detail TEXT NOT NULL,
  worker TEXT NOT NULL,
  hash BLOB NOT NULL,
  PRIMARY KEY (chain_id, seq)
) WITHOUT ROWID;

CREATE TABLE facts (code INTEGER PRIMARY KEY, name TEXT NOT NULL);
INSERT INTO facts (code, name) VALUES
  (1, 'verified'),
  (2, 'adopted'),
  (3, 'skipped'),
  (4, 'failed'),
  (5, 'deleted'),
  (6, 'retried'),
  (7, 'vanished'),
  (8, 'changed'),
  (9, 'forgotten'),
  (10, 'kept');

-- What became of objects while a scan was its flow's newest.
CREATE TABLE batches (
  scan_id INTEGER PRIMARY KEY,
  verified INTEGER NOT NULL,
  adopted INTEGER NOT NULL,
  skipped INTEGER NOT NULL,
  failed INTEGER NOT NULL,
  deleted INTEGER NOT NULL,
  verified_bytes INTEGER NOT NULL
);

CREATE VIEW audit_trail AS
SELECT
  chains.flow AS flow,
  a.seq AS seq,
  datetime(a.at / 1000, 'unixepoch') AS at,
  facts.name AS fact,
  buckets.name AS bucket,
  CAST(a.object_key AS TEXT) AS key,
  lower(hex(a.object_key)) AS key_hex,
  a.size, a.etag, a.target_etag, a.version_id, a.method, a.proof, a.reason, a.detail, a.worker,
  lower(hex(a.hash)) AS hash
FROM audit AS a
JOIN chains ON chains.id = a.chain_id
JOIN facts ON facts.code = a.fact
LEFT JOIN buckets ON buckets.id = a.bucket_id;

-- By the names that an older tool gave its tables, so that its users' queries go on answering. What a
-- flow does not take (skipped) was none of that tool's business and is left out.
CREATE VIEW document_logs AS
SELECT
  o.id AS id,
  CASE WHEN o.not_utf8 THEN 'hex:' || hex(o.object_key) ELSE CAST(o.object_key AS TEXT) END
    AS file_key,
  CASE WHEN o.state IN (10, 11) THEN 'success' WHEN o.state = 13 THEN 'error' ELSE 'pending' END
    AS status,
  CASE
    WHEN o.state IN (10, 11) THEN o.method || ', proven by ' || o.proof
    WHEN o.message <> '' THEN o.message
    ELSE o.reason
  END AS message,
  CASE WHEN o.state IN (10, 11) THEN datetime(o.updated_at / 1000, 'unixepoch') END AS moved_at,
  datetime(o.discovered_at / 1000, 'unixepoch') AS created_at,
  datetime(o.updated_at / 1000, 'unixepoch') AS updated_at
FROM objects AS o
JOIN flows ON flows.id = o.flow_id
WHERE flows.name IS NOT NULL AND o.state <> 12;

CREATE VIEW failed_migrations AS
SELECT * FROM document_logs WHERE status = 'error' ORDER BY updated_at DESC, id DESC;

CREATE VIEW recent_migrations AS
SELECT * FROM document_logs WHERE status = 'success' ORDER BY moved_at DESC, id DESC LIMIT 100;

CREATE VIEW migration_batches AS
SELECT
  s.id AS id,
  flows.name AS flow,
  datetime(s.started, 'unixepoch') AS started,
  datetime(s.finished, 'unixepoch') AS finished,
  s.listed AS listed,
  s.listed_bytes AS listed_bytes,
  coalesce(b.verified, 0) + coalesce(b.adopted, 0) AS succeeded,
  coalesce(b.verified, 0) AS moved,
  coalesce(b.adopted, 0) AS adopted,
  coalesce(b.skipped, 0) AS skipped,
  coalesce(b.failed, 0) AS failed,
  coalesce(b.deleted, 0) AS deleted,
  coalesce(b.verified_bytes, 0) AS bytes
FROM scans AS s
JOIN flows ON flows.id = s.flow_id
LEFT JOIN batches AS b ON b.scan_id = s.id
WHERE flows.name IS NOT NULL;
