-- An entry says something for a while. KEYS[1] the entries of a place: a hash, `n` how many came so far, and `e<key>` of
-- each entry when it came, until when it is there, and what it says. ARGV: its key, what it says, for how many
-- milliseconds, and how many others there may be at most, or ''.
-- Answers whether it said anything else before, as 1 or 0, or -1 where there is no room.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local field, changed, number = 'e' .. ARGV[1], 1, nil
local former = redis.call('HGET', KEYS[1], field)
if former then
  local came, ends, value = unpack(cmsgpack.unpack(former))
  if ends > now then
    number = came
    changed = value == ARGV[2] and 0 or 1
  end
end
if not number then
  local here, all = 0, redis.call('HGETALL', KEYS[1])
  for place = 1, #all, 2 do
    if all[place] ~= 'n' then
      local _, ends = unpack(cmsgpack.unpack(all[place + 1]))
      if ends > now then
        here = here + 1
      else
        redis.call('HDEL', KEYS[1], all[place])
      end
    end
  end
  if ARGV[4] ~= '' and here >= tonumber(ARGV[4]) then
    return -1
  end
  number = redis.call('HINCRBY', KEYS[1], 'n', 1)
end
redis.call('HSET', KEYS[1], field, cmsgpack.pack({ number, now + ARGV[3], ARGV[2] }))
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
end
return changed
