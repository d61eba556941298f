-- Which way a flow's objects of a source bucket go, and why: whose credentials ask for copies inside the
-- store, or that bytes are streamed. It is looked at anew at "expires" (0: never), and when the
-- configuration of the endpoints is another than when it was decided.
CREATE TABLE IF NOT EXISTS verdicts (
  flow_id BIGINT NOT NULL,
  bucket VARBINARY(1024) NOT NULL,
  what VARCHAR(100) NOT NULL,
  way VARCHAR(100) NOT NULL,
  reason TEXT NOT NULL,
  decided DOUBLE NOT NULL,
  expires DOUBLE NOT NULL,
  PRIMARY KEY (flow_id, bucket, what)
) ENGINE=InnoDB ROW_FORMAT=DYNAMIC DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
