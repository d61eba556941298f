-- The last row of each flow's audit trail. It outlives the flow: of what was forgotten, too, it must be
-- possible to say what it did.
CREATE TABLE IF NOT EXISTS chains (
  id BIGINT NOT NULL AUTO_INCREMENT,
  flow VARCHAR(200) NOT NULL,
  seq BIGINT NOT NULL,
  hash VARBINARY(32) NOT NULL,
  PRIMARY KEY (id),
  UNIQUE KEY chains_by_flow (flow)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Nothing changes a row once it is there, or takes it away. What its hash is made of: see audit.py.
CREATE TABLE IF NOT EXISTS audit (
  chain_id BIGINT NOT NULL,
  seq BIGINT NOT NULL,
  at BIGINT NOT NULL,
  fact TINYINT NOT NULL,
  bucket_id BIGINT NOT NULL,
  object_key VARBINARY(3000) NOT NULL,
  size BIGINT NOT NULL,
  etag MEDIUMTEXT NOT NULL,
  target_etag MEDIUMTEXT NOT NULL,
  version_id MEDIUMTEXT NOT NULL,
  method VARCHAR(60) NOT NULL,
  proof VARCHAR(60) NOT NULL,
  reason VARCHAR(200) NOT NULL,
  detail TEXT NOT NULL,
  worker VARCHAR(300) NOT NULL,
  hash BINARY(32) NOT NULL,
  PRIMARY KEY (chain_id, seq)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS facts (
  code TINYINT NOT NULL,
  name VARCHAR(40) NOT NULL,
  PRIMARY KEY (code)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
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
  (10, 'kept')
  ON DUPLICATE KEY UPDATE name = VALUES(name);

-- What became of objects while a scan was its flow's newest.
CREATE TABLE IF NOT EXISTS batches (
  scan_id BIGINT NOT NULL,
  verified BIGINT NOT NULL,
  adopted BIGINT NOT NULL,
  skipped BIGINT NOT NULL,
  failed BIGINT NOT NULL,
  deleted BIGINT NOT NULL,
  verified_bytes BIGINT NOT NULL,
  PRIMARY KEY (scan_id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE OR REPLACE VIEW audit_trail AS
SELECT
  chains.flow AS flow,
  a.seq AS seq,
  TIMESTAMP('1970-01-01') + INTERVAL (a.at DIV 1000) SECOND AS at,
  facts.name AS fact,
  CONVERT(buckets.name USING utf8mb4) AS bucket,
  CONVERT(a.object_key USING utf8mb4) AS `key`,
  LOWER(HEX(a.object_key)) AS key_hex,
  a.size, a.etag, a.target_etag, a.version_id, a.method, a.proof, a.reason, a.detail, a.worker,
  LOWER(HEX(a.hash)) AS hash
FROM audit AS a
JOIN chains ON chains.id = a.chain_id
JOIN facts ON facts.code = a.fact
LEFT JOIN buckets ON buckets.id = a.bucket_id;

-- By the names that an older tool gave its tables, so that its users' queries go on answering. What a
-- flow does not take (skipped) was none of that tool's business and is left out. The collations that
-- tell `a` from `a ` have other names in MariaDB (which skips what is for MySQL 5.7 and later) and in
-- MySQL (which takes M! for a comment).
CREATE OR REPLACE VIEW document_logs AS
SELECT
  o.id AS id,
  CASE
    WHEN o.not_utf8 THEN CONCAT('hex:', HEX(o.object_key))
    ELSE CONVERT(o.object_key USING utf8mb4)
  END COLLATE /*M!100600 utf8mb4_nopad_bin *//*!80017 utf8mb4_0900_bin */ AS file_key,
  CASE WHEN o.state IN (10, 11) THEN 'success' WHEN o.state = 13 THEN 'error' ELSE 'pending' END
    AS status,
  CASE
    WHEN o.state IN (10, 11) THEN CONCAT(o.method, ', proven by ', o.proof)
    WHEN o.message <> '' THEN o.message
    ELSE o.reason
  END AS message,
  CASE
    WHEN o.state IN (10, 11)
    THEN TIMESTAMP('1970-01-01') + INTERVAL (o.updated_at DIV 1000) SECOND
  END AS moved_at,
  TIMESTAMP('1970-01-01') + INTERVAL (o.discovered_at DIV 1000) SECOND AS created_at,
  TIMESTAMP('1970-01-01') + INTERVAL (o.updated_at DIV 1000) SECOND AS updated_at
FROM objects AS o
JOIN flows ON flows.id = o.flow_id
WHERE flows.name IS NOT NULL AND o.state <> 12;

CREATE OR REPLACE VIEW failed_migrations AS
SELECT * FROM document_logs WHERE status = 'error' ORDER BY updated_at DESC, id DESC;

CREATE OR REPLACE VIEW recent_migrations AS
SELECT * FROM document_logs WHERE status = 'success' ORDER BY moved_at DESC, id DESC LIMIT 100;

CREATE OR REPLACE VIEW migration_batches AS
SELECT
  s.id AS id,
  flows.name AS flow,
  TIMESTAMP('1970-01-01') + INTERVAL FLOOR(s.started) SECOND AS started,
  TIMESTAMP('1970-01-01') + INTERVAL FLOOR(s.finished) SECOND AS finished,
  s.listed AS listed,
  s.listed_bytes AS listed_bytes,
  COALESCE(b.verified, 0) + COALESCE(b.adopted, 0) AS succeeded,
  COALESCE(b.verified, 0) AS moved,
  COALESCE(b.adopted, 0) AS adopted,
  COALESCE(b.skipped, 0) AS skipped,
  COALESCE(b.failed, 0) AS failed,
  COALESCE(b.deleted, 0) AS deleted,
  COALESCE(b.verified_bytes, 0) AS bytes
FROM scans AS s
JOIN flows ON flows.id = s.flow_id
LEFT JOIN batches AS b ON b.scan_id = s.id
WHERE flows.name IS NOT NULL;
