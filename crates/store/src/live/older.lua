-- Puts one partition's part of an older hour, as the archive has it, beside the live hours. Never over anything newer.
--
-- KEYS[1] position hash; KEYS[2] the older hour's key
-- ARGV[1] the archive's position    ARGV[2] the archive's value, without the build    ARGV[3] time to live in ms
--
-- Answers 'filled'; 'early' when the archive stands before the position it must have reached: read it again later;
-- 'incomplete' when Redis itself does not contain everything yet.
--
-- The key is reserved, with the position of that moment, before the archive's value is taken. From then on every count of
-- the hour replaces the reservation (step.lua), so an archive that has reached that position misses nothing that Redis saw.

local function is_number(text)
  return type(text) == 'string' and #text <= 19 and (text == '0' or text:find('^[1-9]%d*$') ~= nil)
end

-- Decimal numbers as text: a Lua number is exact up to 2^53 only.
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
if complete ~= '1' or not build or not is_number(position) then return 'incomplete' end

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
  return 'early'
end
redis.call('SET', KEYS[2], value .. ':' .. build, 'PX', lives)
return 'filled'
