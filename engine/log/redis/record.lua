-- A record of each of many lives. ARGV[1] base, session and epoch of each ('': the one that lives), ARGV[2] the key,
-- ARGV[3] the most bytes past the first: the answer ends where there would be more.
-- Answers for each 0 when the life is over, 1 when it is damaged, 2 when it has no such record, or the value.

local key, left = ARGV[2], tonumber(ARGV[3])
local kind = string.find(key, '/', 1, true) and 'r' or 'q'

local function record_of(base, session, epoch)
  local at = standing_of(base, session)
  if not lives(at, epoch) then
    return 0
  end
  return redis.call('HGET', records_key(kind, base, session, at.epoch), key) or 2
end

local answers = {}
for _, asked in ipairs(cmsgpack.unpack(ARGV[1])) do
  local answer = guarded(1, record_of, unpack(asked))
  left = left - (type(answer) == 'string' and #answer or 0)
  if left < 0 and #answers > 0 then
    break
  end
  answers[#answers + 1] = answer
end
return answers
