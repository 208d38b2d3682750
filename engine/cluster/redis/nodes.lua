-- Who is there. KEYS[1] as `beat.lua`.
-- Answers name, lease, name, lease, …, where a lease that is over is ''.

local answer = {}
for _, name in ipairs(redis.call('SMEMBERS', KEYS[1] .. 'all')) do
  answer[#answer + 1] = name
  answer[#answer + 1] = redis.call('GET', KEYS[1] .. 'l' .. name) or ''
end
return answer
