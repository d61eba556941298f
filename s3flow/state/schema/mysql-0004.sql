-- Restores of archived objects that were asked for, each a moment before it was: what a daily budget is
-- counted from, and how often one version was restored without ever being read.
CREATE TABLE IF NOT EXISTS restores (
  flow_id BIGINT NOT NULL,
  object_id BIGINT NOT NULL,
  generation BIGINT NOT NULL,
  asked_at BIGINT NOT NULL,
  bytes BIGINT NOT NULL,
  PRIMARY KEY (flow_id, asked_at, object_id),
  KEY restores_object (object_id, generation)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
