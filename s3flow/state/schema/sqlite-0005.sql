-- What has a time of its own: a restore to ask for or to look after, a source to delete. Workers take
-- none of these, so the codes of such states are beyond theirs: "state < 5" says what may be claimed.
UPDATE states SET code = 5 WHERE name = 'restore_requested';
UPDATE states SET code = 6 WHERE name = 'restoring';
ALTER TABLE objects ADD COLUMN due_at INTEGER NOT NULL DEFAULT 0;
CREATE INDEX objects_due ON objects (flow_id, state, due_at) WHERE due_at > 0;
DROP INDEX objects_fresh;
DROP INDEX objects_waiting;
CREATE INDEX objects_fresh ON objects (flow_id)
  WHERE state < 5 AND retry_at = 0 AND upload_id IS NULL;
CREATE INDEX objects_waiting ON objects (flow_id, retry_at) WHERE state < 5 AND retry_at > 0;
