-- Absolute counts of an hour in a partition. A row is replaced only by one with a larger (generation, next_offset).
CREATE TABLE hourly (
    hour         timestamptz NOT NULL,
    partition    integer     NOT NULL CHECK (partition >= 0),
    generation   bigint      NOT NULL,
    next_offset  bigint      NOT NULL,
    clicks       bigint      NOT NULL CHECK (clicks >= 0),
    impressions  bigint      NOT NULL CHECK (impressions >= 0),
    unique_users bigint      NOT NULL CHECK (unique_users >= 0),
    exact        boolean     NOT NULL,
    PRIMARY KEY (hour, partition)
);

-- A rebuild drops what a partition held.
CREATE INDEX hourly_partition ON hourly (partition);

-- How far analytics.hourly is contained, by partition. It moves in the same transaction as the counts.
-- No position: nothing was written yet, or the partition is to be rebuilt (UPDATE projection SET position = NULL).
CREATE TABLE projection (
    partition integer PRIMARY KEY CHECK (partition >= 0),
    position  bigint CHECK (position >= 0),
    complete  boolean NOT NULL DEFAULT false
);
