-- KEYS[1] as `beat.lua`. ARGV[1] a name, ARGV[2] its incarnation that leaves, whose lease ends; or '': the name is
-- forgotten, unless it has a lease.

local incarnations, lease = KEYS[1] .. 'i' .. ARGV[1], KEYS[1] .. 'l' .. ARGV[1]
if ARGV[2] ~= '' then
  if redis.call('LINDEX', incarnations, 0) == ARGV[2] then
    redis.call('DEL', lease)
  end
elseif redis.call('EXISTS', lease) == 0 then
  redis.call('DEL', incarnations)
  redis.call('SREM', KEYS[1] .. 'all', ARGV[1])
end
return 0
