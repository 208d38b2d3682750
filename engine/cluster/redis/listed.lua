-- What is there now. ARGV: the keys of places, as `put.lua`, all of them in the slot of KEYS[1].
-- Answers for each when it came, key, what it says, and so on, in no order.

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local answer = {}
for _, place in ipairs(ARGV) do
  local here, all = {}, redis.call('HGETALL', place)
  for at = 1, #all, 2 do
    if all[at] ~= 'n' then
      local came, ends, value = unpack(cmsgpack.unpack(all[at + 1]))
      if ends > now then
        here[#here + 1] = came
        here[#here + 1] = string.sub(all[at], 2)
        here[#here + 1] = value
      end
    end
  end
  answer[#answer + 1] = here
end
return answer
