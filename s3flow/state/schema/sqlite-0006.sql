-- Restores of archived objects that were asked for, each a moment before it was: what a daily budget is
-- counted from, and how often one version was restored without ever being read.
CREATE TABLE restores (
  flow_id INTEGER NOT NULL,
  object_id INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  asked_at INTEGER NOT NULL,
  bytes INTEGER NOT NULL
);
CREATE INDEX restores_asked ON restores (flow_id, asked_at);
CREATE INDEX restores_object ON restores (object_id, generation);
