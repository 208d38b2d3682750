-- A page of events. ARGV: base, session, epoch, the offset behind which it begins, limit, most bytes past the first.
-- Answers 0 when this life is over, 1 when it is damaged, or offset, body, offset, body, …

local base, session, epoch = ARGV[1], ARGV[2], ARGV[3]
local first, limit, most = tonumber(ARGV[4]) + 1, tonumber(ARGV[5]), tonumber(ARGV[6])

-- A block with few events left is cheaper to list than to ask for every offset.
local FEW = SPAN / 8

local function offsets_in(key, block, count, tail)
  local offsets = {}
  if count < FEW then
    for _, field in ipairs(redis.call('HKEYS', key)) do
      local offset = tonumber(field)
      if offset and offset >= first and offset <= tail then
        offsets[#offsets + 1] = offset
      end
    end
    table.sort(offsets)
  else
    for offset = math.max(first, block * SPAN), math.min(tail, block * SPAN + SPAN - 1) do
      offsets[#offsets + 1] = offset
    end
  end
  return offsets
end

local function page()
  local at = standing_of(base, session)
  if not lives(at, epoch) then
    return 0
  elseif not at.tail then
    return 1
  end
  local found, size, lot = {}, 0, 16
  for block = block_of(first), block_of(at.tail) do
    local key = events_key(base, session, epoch, block)
    local count = redis.call('HLEN', key)
    local offsets = count > 0 and offsets_in(key, block, count, at.tail) or {}
    local from = 1
    while from <= #offsets do
      local names = {}
      for place = from, math.min(from + lot - 1, #offsets) do
        names[#names + 1] = text(offsets[place])
      end
      for place, body in ipairs(redis.call('HMGET', key, unpack(names))) do
        if body then
          size = size + #body
          if #found > 0 and size > most then
            return found
          end
          found[#found + 1] = offsets[from + place - 1]
          found[#found + 1] = body
          if #found >= 2 * limit then
            return found
          end
        end
      end
      from, lot = from + lot, math.min(2 * lot, 256)
    end
  end
  return found
end

return guarded(1, page)
