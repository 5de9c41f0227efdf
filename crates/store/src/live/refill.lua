-- Writes one partition's count of an older hour from the archive. Never replaces a newer count.
--
-- KEYS[1] position hash; KEYS[2] the older hour's key
-- ARGV[1] the archive's position    ARGV[2] the archive's value, without the build    ARGV[3] time to live in ms
--
-- Returns 'filled'; 'archive-behind' if the archive has not reached the required position: read it again later;
-- 'rebuilding' if Redis itself is incomplete.
--
-- The script first reserves the key with the current position. From then on every count of the hour replaces the
-- reservation (write.lua), so an archive that has reached that position includes every count that Redis has.

local function is_number(text)
  return type(text) == 'string' and #text <= 19 and (text == '0' or text:find('^[1-9]%d*$') ~= nil)
end

-- Compares decimal numbers as text: a Lua number is exact only up to 2^53.
local function is_less(a, b)
  if #a ~= #b then return #a < #b end
  return a < b
end

local reached, value, lives = ARGV[1], ARGV[2], ARGV[3]
local generation, offset = value:match('^(%d+):(%d+):%d+:%d+:%d+:[ea]$')
if not is_number(reached) or not is_number(lives) or not generation then
  return redis.error_reply('MALFORMED arguments')
end

local position, build, complete = unpack(redis.call('HMGET', KEYS[1], 'position', 'build', 'complete'))
if complete ~= '1' or not build or not is_number(position) then return 'rebuilding' end

local needed = position
local old = redis.call('GET', KEYS[2])
if old then
  local reserved, reserved_build = old:match('^p:(%d+):([^:]+)$')
  local old_generation, old_offset, old_build = old:match('^(%d+):(%d+):%d+:%d+:%d+:[ea]:([^:]+)$')
  if reserved_build == build then
    needed = reserved
  elseif old_build == build then
    needed = '0'
    if is_less(generation, old_generation) or (generation == old_generation and is_less(offset, old_offset)) then
      value = old:match('^(.*):[^:]+$')
    end
  end
end

if is_less(reached, needed) then
  if needed == position then redis.call('SET', KEYS[2], 'p:' .. position .. ':' .. build, 'PX', lives) end
  return 'archive-behind'
end
redis.call('SET', KEYS[2], value .. ':' .. build, 'PX', lives)
return 'filled'
