-- Up to which offset of analytics.events the counts hold, and the latest time at which the log received one of those events. An
-- earlier version leaves both as they are: they then claim less than is counted.
ALTER TABLE projection ADD COLUMN counted bigint CHECK (counted >= 0), ADD COLUMN counted_at bigint;
