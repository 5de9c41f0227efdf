-- Writes one step of one partition. Redis does not roll back a script, so the script checks everything before it writes,
-- and writes the position last.
--
-- KEYS[1] position hash; KEYS[2..] hour keys
-- ARGV[1] expected position, '' = none    ARGV[2] next position
-- ARGV[3] id of a new incarnation, '' = keep the current one (required to begin a rebuild)
-- ARGV[4] '1' = caught up                 ARGV[5] hours of the window
-- ARGV[6] next position and identity of the record before it, '' = none
-- ARGV[7] the first hour that this writer still writes, in hours since the epoch
-- ARGV[8] the input position that is counted and its log time, '' = as before
-- then for each hour key: its value without the build, and its expiry in ms since the epoch; '' for an older hour, which
-- the script only corrects if it exists, and whose time to live it keeps
--
-- Returns {1, next} after a write, {0, stored position} if the stored position differs ('' = none).

local function is_number(text)
  return type(text) == 'string' and #text <= 19 and (text == '0' or text:find('^[1-9]%d*$') ~= nil)
end

-- Compares decimal numbers as text: a Lua number is exact only up to 2^53.
local function is_less(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end

local function malformed(what)
  return redis.error_reply('MALFORMED ' .. what)
end

local function may(...)
  return redis.acl_check_cmd == nil or redis.acl_check_cmd(...)
end

local expected, next_position, minted, caught_up, hours, last_record, counted =
  ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[8]
local written_from = tonumber(ARGV[7])
if not is_number(next_position) or (expected ~= '' and not is_number(expected)) or not is_number(hours)
  or (caught_up ~= '0' and caught_up ~= '1') or (expected == '' and minted == '')
  or not written_from or #ARGV ~= 8 + 2 * (#KEYS - 1) then
  return malformed('arguments')
end

-- The stored position of the partition.
local stored, incarnation, build, complete = '', '', '', '0'
local kind = redis.call('TYPE', KEYS[1]).ok
if kind == 'hash' then
  local fields = redis.call('HMGET', KEYS[1], 'position', 'incarnation', 'build', 'complete', 'hours', 'written_from')
  if not is_number(fields[1]) or not fields[2] or not fields[3]
    or (fields[4] ~= '0' and fields[4] ~= '1') or not is_number(fields[5]) then
    return malformed(KEYS[1])
  end
  local from = tonumber(fields[6] or '') or written_from
  -- Hours outside a narrower window are missing, not zero: a wider window needs a rebuild. So do hours that a writer with a
  -- fast clock left out; an hour is the clocks' skew.
  if not is_less(fields[5], hours) and from <= written_from + 1 then
    stored, incarnation, build, complete = fields[1], fields[2], fields[3], fields[4]
    -- What another writer left out stays out for the rest of the build.
    written_from = math.max(written_from, from)
  end
elseif kind ~= 'none' then
  return redis.error_reply('WRONGTYPE ' .. KEYS[1] .. ' is a ' .. kind)
end
if stored ~= expected then return {0, stored} end
if stored == '' then build = minted end
if minted ~= '' then incarnation, complete = minted, '0' end
if caught_up == '1' then complete = '1' end
if not may('HSET', KEYS[1], 'position', next_position) then
  return redis.error_reply('NOPERM no permission to run HSET on ' .. KEYS[1])
end

-- Every hour. A value of an earlier build counts as absent; a larger (generation, offset) replaces a value of this build,
-- and any count replaces a reservation of refill.lua.
local keep = {}
for i = 2, #KEYS do
  local value, expires = ARGV[2 * i + 5], ARGV[2 * i + 6]
  local older, old = expires == '', nil
  kind = redis.call('TYPE', KEYS[i]).ok
  if kind == 'string' then
    old = redis.call('GET', KEYS[i])
  elseif kind ~= 'none' then
    return redis.error_reply('WRONGTYPE ' .. KEYS[i] .. ' is a ' .. kind)
  end
  if older and not old then
    keep[i] = true
  else
    local generation, offset = value:match('^(%d+):(%d+):%d+:%d+:%d+:[ea]$')
    if not generation or not (older or is_number(expires)) then return malformed('value for ' .. KEYS[i]) end
    if old then
      local old_generation, old_offset, old_build = old:match('^(%d+):(%d+):%d+:%d+:%d+:[ea]:([^:]+)$')
      local reserved_build = older and old:match('^p:%d+:([^:]+)$')
      if not old_generation and not reserved_build then return malformed(KEYS[i]) end
      if (old_build or reserved_build) ~= build then
        keep[i] = older
      elseif old_generation then
        keep[i] = is_less(generation, old_generation)
          or (generation == old_generation and not is_less(old_offset, offset))
      end
    end
    if not may('SET', KEYS[i], value, 'PXAT', older and '1' or expires) then
      return redis.error_reply('NOPERM no permission to run SET on ' .. KEYS[i])
    end
  end
end

for i = 2, #KEYS do
  local value, expires = ARGV[2 * i + 5] .. ':' .. build, ARGV[2 * i + 6]
  if keep[i] then
    -- Unchanged.
  elseif expires == '' then
    redis.call('SET', KEYS[i], value, 'KEEPTTL')
  else
    redis.call('SET', KEYS[i], value, 'PXAT', expires)
  end
end
redis.call('HSET', KEYS[1], 'position', next_position, 'incarnation', incarnation, 'build', build,
  'complete', complete, 'hours', hours, 'last_record', last_record,
  'written_from', string.format('%d', written_from))
-- A new build has counted nothing yet.
if counted ~= '' or stored == '' then redis.call('HSET', KEYS[1], 'counted', counted) end
return {1, next_position}
