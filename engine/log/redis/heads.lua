-- Where sessions stand. ARGV[1] pairs of base and session.
-- Answers for each 0 when there never was one, 1 when its head is no head at all, or what is stored of it.

local function head_of(base, session)
  local head = redis.call('HMGET', base .. 'h' .. session, 'e', 't', 'k', 'o', 'd', 'r', 'm', 'l')
  head[8] = (head[8] or '') ~= lineage_of(base) and 1
  for place = 1, 7 do
    if head[place] then
      return head
    end
  end
  return 0
end

local answers = {}
for _, asked in ipairs(cmsgpack.unpack(ARGV[1])) do
  answers[#answers + 1] = guarded(1, head_of, unpack(asked))
end
return answers
