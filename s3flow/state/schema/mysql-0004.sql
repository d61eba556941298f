-- Restores of archived objects that were asked for, each a moment before it was: what a daily budget is
-- counted from, and how often one version was restored without ever being read.
CREATE TABLE IF NOT EXISTS restores (
  id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
  flow_id BIGINT NOT NULL,
  object_id BIGINT NOT NULL,
  generation BIGINT NOT NULL,
  asked_at BIGINT NOT NULL,
  bytes BIGINT NOT NULL,
  KEY restores_asked (flow_id, asked_at),
  KEY restores_object (object_id, generation)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
