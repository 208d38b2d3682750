-- The sessions that changed behind a number. KEYS[1] as `note.lua`. ARGV: whose numbers they are if there are none yet,
-- the number, and how many sessions at most. Answers whose they are, the last one, up to which they are forgotten, and
-- session, number, session, number, …

local numbers = KEYS[1] .. ':n'
redis.call('HSETNX', numbers, 'e', ARGV[1])
local e, n, f = unpack(redis.call('HMGET', numbers, 'e', 'n', 'f'))
local found = redis.call('ZRANGE', KEYS[1], '(' .. ARGV[2], '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[3], 'WITHSCORES')
return { e, n or '0', f or '0', found }
