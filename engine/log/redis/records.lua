-- The records whose key begins so. ARGV: base, session, epoch, prefix.
-- Answers 0 when this life is over, 1 when it is damaged, or key, value, key, value, … in no order.

local base, session, epoch, prefix = ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local function records()
  if not lives(standing_of(base, session), epoch) then
    return 0
  end
  local found = {}
  if not string.find(prefix, '/', 1, true) then
    local plain = redis.call('HGETALL', records_key('q', base, session, epoch))
    for place = 1, #plain, 2 do
      if string.sub(plain[place], 1, #prefix) == prefix then
        found[#found + 1] = plain[place]
        found[#found + 1] = plain[place + 1]
      end
    end
  end
  -- No byte of UTF-8 is 255.
  local index = records_key('k', base, session, epoch)
  for _, key in ipairs(redis.call('ZRANGEBYLEX', index, '[' .. prefix, '(' .. prefix .. '\255')) do
    found[#found + 1] = key
    found[#found + 1] = redis.call('HGET', records_key('r', base, session, epoch), key)
  end
  return found
end

return guarded(1, records)
