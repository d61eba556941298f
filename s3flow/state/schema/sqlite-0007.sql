-- What a walk over the source has listed of each bucket, by storage class: objects that the same walk
-- lists again are counted anew. Of finished walks, the last one's alone is kept.
CREATE TABLE classes (
  scan_id INTEGER NOT NULL,
  bucket_id INTEGER NOT NULL,
  storage_class TEXT NOT NULL,
  objects INTEGER NOT NULL,
  bytes INTEGER NOT NULL,
  PRIMARY KEY (scan_id, bucket_id, storage_class)
) WITHOUT ROWID;

-- Source buckets that could not be listed to their end, since when and why.
CREATE TABLE unlisted (
  flow_id INTEGER NOT NULL,
  bucket_id INTEGER NOT NULL,
  reason TEXT NOT NULL,
  message TEXT NOT NULL,
  since REAL NOT NULL,
  PRIMARY KEY (flow_id, bucket_id)
) WITHOUT ROWID;

-- For people and their scripts: every object by s3flow's own words. A key that is not UTF-8 is shown as
-- hex:….
DROP VIEW files;
CREATE VIEW inventory AS
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

-- By the names and states of an older tool that emptied accounts to disks, so that its users' queries go
-- on answering. It knew no objects that are left out: 'skipped' is a state of its own here.
CREATE VIEW files AS
SELECT
  buckets.name AS bucket,
  CASE WHEN o.not_utf8 THEN 'hex:' || hex(o.object_key) ELSE CAST(o.object_key AS TEXT) END AS key,
  o.size AS size,
  o.etag AS etag,
  o.storage_class AS storage_class,
  datetime(o.modified / 1000, 'unixepoch') AS last_modified,
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
    SELECT datetime(max(r.asked_at) / 1000, 'unixepoch') FROM restores AS r
    WHERE r.object_id = o.id AND r.generation = o.generation
  ) AS glacier_restore_requested_at,
  datetime(o.discovered_at / 1000, 'unixepoch') AS created_at,
  datetime(o.updated_at / 1000, 'unixepoch') AS updated_at,
  flows.name AS flow
FROM objects AS o
JOIN flows ON flows.id = o.flow_id
JOIN buckets ON buckets.id = o.bucket_id
JOIN states ON states.code = o.state
WHERE flows.name IS NOT NULL;
