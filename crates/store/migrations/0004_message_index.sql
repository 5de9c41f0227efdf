-- Where in `messages` the messages of each API topic are: a row for each step of the materializer and topic. `offsets` has `count`
-- ascending offsets, the highest of which is `last`: the first one and then differences, each as a LEB128. A topic is the offset
-- of the command that created it. Partitioned by `day`, the days since the epoch: a day is dropped as a whole once the log has
-- dropped what it names. Its tables are `message_index_{day}`.
CREATE TABLE message_index (
    day       integer NOT NULL,
    partition integer NOT NULL CHECK (partition >= 0),
    topic_id  bigint  NOT NULL,
    last      bigint  NOT NULL,
    count     integer NOT NULL CHECK (count > 0),
    offsets   bytea   NOT NULL,
    PRIMARY KEY (partition, topic_id, last, day)
) PARTITION BY LIST (day);

-- The highest offset of a partition that a day names.
CREATE TABLE message_index_day (
    day       integer,
    partition integer,
    last      bigint NOT NULL,
    PRIMARY KEY (day, partition)
);

-- How far `messages` is contained, by partition, with the identity of the record before, and the coordinator that was read last:
-- later messages with another one are no messages. No position: nothing was written yet, or the partition is to be rebuilt.
CREATE TABLE message_index_position (
    partition   integer PRIMARY KEY CHECK (partition >= 0),
    position    bigint CHECK (position >= 0),
    last_record bigint,
    owner       bigint
);
