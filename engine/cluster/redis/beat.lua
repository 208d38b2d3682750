-- A node is there. KEYS[1] what all keys of nodes begin with. ARGV: its name, its incarnation, what it says of itself,
-- its lease in milliseconds, how many incarnations of a name are remembered.
-- Answers 1 when its lease held until now, 0 when it did not, -1 when another incarnation has replaced this one.

local incarnations, lease = KEYS[1] .. 'i' .. ARGV[1], KEYS[1] .. 'l' .. ARGV[1]
local known = redis.call('LRANGE', incarnations, 0, -1) -- the newest first
for place, incarnation in ipairs(known) do
  if incarnation == ARGV[2] and place > 1 then
    return -1
  end
end
if known[1] ~= ARGV[2] then
  redis.call('LPUSH', incarnations, ARGV[2])
  redis.call('LTRIM', incarnations, 0, tonumber(ARGV[5]) - 1)
  redis.call('DEL', lease)
end
redis.call('SADD', KEYS[1] .. 'all', ARGV[1])
local held = redis.call('EXISTS', lease)
redis.call('SET', lease, ARGV[3], 'PX', ARGV[4])
return held
