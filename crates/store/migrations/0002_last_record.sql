-- The identity of the record of analytics.hourly before a position, and the position that it is of: an earlier version moves the
-- position only.
ALTER TABLE projection ADD COLUMN last_record bigint, ADD COLUMN last_record_of bigint;
