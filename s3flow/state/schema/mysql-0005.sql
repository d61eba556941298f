-- What a walk over the source has listed of each bucket, by storage class: objects that the same walk
-- lists again are counted anew. Of finished walks, the last one's alone is kept.
CREATE TABLE IF NOT EXISTS classes (
  scan_id BIGINT NOT NULL,
  bucket_id BIGINT NOT NULL,
  storage_class VARCHAR(100) NOT NULL,
  objects BIGINT NOT NULL,
  bytes BIGINT NOT NULL,
  PRIMARY KEY (scan_id, bucket_id, storage_class)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Source buckets that could not be listed to their end, since when and why.
CREATE TABLE IF NOT EXISTS unlisted (
  flow_id BIGINT NOT NULL,
  bucket_id BIGINT NOT NULL,
  reason VARCHAR(200) NOT NULL,
  message TEXT NOT NULL,
  since DOUBLE NOT NULL,
  PRIMARY KEY (flow_id, bucket_id)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- For people and their scripts: every object by s3flow's own words; times are UTC. A key that is not
-- UTF-8 is shown as hex:….
CREATE OR REPLACE VIEW inventory AS
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

-- By the names and states of an older tool that emptied accounts to disks, so that its users' queries go
-- on answering. It knew no objects that are left out: 'skipped' is a state of its own here. For the two
-- collations see document_logs.
CREATE OR REPLACE VIEW files AS
SELECT
  CONVERT(buckets.name USING utf8mb4) AS bucket,
  CASE
    WHEN o.not_utf8 THEN CONCAT('hex:', HEX(o.object_key))
    ELSE CONVERT(o.object_key USING utf8mb4)
  END COLLATE /*M!100600 utf8mb4_nopad_bin *//*!80017 utf8mb4_0900_bin */ AS `key`,
  o.size AS size,
  o.etag AS etag,
  o.storage_class AS storage_class,
  TIMESTAMP('1970-01-01') + INTERVAL (o.modified DIV 1000) SECOND AS last_modified,
  CASE o.state
    WHEN 3 THEN 'downloading'
    WHEN 4 THEN 'downloaded'
    WHEN 5 THEN 'glacier_restore_requested'
    WHEN 6 THEN 'glacier_restoring'
    WHEN 13 THEN 'error'
    ELSE states.name
  END AS state,
  CASE
    WHEN o.message <> '' THEN o.message
    WHEN o.reason <> '' THEN o.reason
  END AS error_message,
  (
    SELECT TIMESTAMP('1970-01-01') + INTERVAL (MAX(r.asked_at) DIV 1000) SECOND FROM restores AS r
    WHERE r.object_id = o.id AND r.generation = o.generation
  ) AS glacier_restore_requested_at,
  TIMESTAMP('1970-01-01') + INTERVAL (o.discovered_at DIV 1000) SECOND AS created_at,
  TIMESTAMP('1970-01-01') + INTERVAL (o.updated_at DIV 1000) SECOND AS updated_at,
  flows.name AS flow
FROM objects AS o
JOIN flows ON flows.id = o.flow_id
JOIN buckets ON buckets.id = o.bucket_id
JOIN states ON states.code = o.state
WHERE flows.name IS NOT NULL;
