-- Entries are taken out. KEYS[1] as `put.lua`, ARGV their keys. Answers how many were there.

local gone = 0
for _, key in ipairs(ARGV) do
  gone = gone + redis.call('HDEL', KEYS[1], 'e' .. key)
end
return gone
