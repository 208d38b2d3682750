-- Sessions of the list have changed. KEYS[1] is the zset of those that are remembered, each with the number of its last
-- change; behind it `:n`, a hash: e whose numbers they are, n the last one, f up to which they are forgotten.
-- ARGV: whose they are if there are none yet, how many sessions are remembered, and the sessions.

local numbers = KEYS[1] .. ':n'
redis.call('HSETNX', numbers, 'e', ARGV[1])
for place = 3, #ARGV do
  redis.call('ZADD', KEYS[1], redis.call('HINCRBY', numbers, 'n', 1), ARGV[place])
end
local spare = redis.call('ZCARD', KEYS[1]) - ARGV[2]
if spare > 0 then
  redis.call('HSET', numbers, 'f', redis.call('ZRANGE', KEYS[1], spare - 1, spare - 1, 'WITHSCORES')[2])
  redis.call('ZREMRANGEBYRANK', KEYS[1], 0, spare - 1)
end
return 0
