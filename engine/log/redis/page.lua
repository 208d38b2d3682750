-- A page of an index, of each of many shards. ARGV: their bases, the index, the name behind which it begins ('': the
-- first), how many names of each, and a prefix that sessions of the index 'by' must have.
-- Answers for each shard {1, names} when there are no more behind these, {0, names} when there may be. The names of a
-- shard that has few with the prefix are all that it has, also those before.

local index, behind, count, prefix = ARGV[2], ARGV[3], tonumber(ARGV[4]), ARGV[5]
local PLACE = 16 -- characters

local function whole(base)
  local from = behind == '' and '-' or '(' .. behind
  local names = redis.call('ZRANGEBYLEX', base .. index, from, '+', 'LIMIT', 0, count)
  return { #names < count and 1 or 0, names }
end

-- Few are looked up one by one. Where there are many, the index is walked, and the others are passed over.
local function of_prefix(base)
  local low, high, total = '[' .. prefix, '(' .. prefix .. '\255', redis.call('ZCARD', base .. 'all')
  local having = redis.call('ZLEXCOUNT', base .. 'all', low, high)
  local names = {}
  if having * having <= count * total then
    for _, session in ipairs(redis.call('ZRANGEBYLEX', base .. 'all', low, high)) do
      local place = redis.call('HGET', base .. 'h' .. session, 'r')
      if place then
        names[#names + 1] = place .. session
      end
    end
    return { 1, names }
  end
  local from = behind == '' and '-' or '(' .. behind
  repeat
    local walked = redis.call('ZRANGEBYLEX', base .. index, from, '+', 'LIMIT', 0, 256)
    for _, name in ipairs(walked) do
      if string.sub(name, PLACE + 1, PLACE + #prefix) == prefix then
        names[#names + 1] = name
        if #names == count then
          return { 0, names }
        end
      end
    end
    from = '(' .. (walked[#walked] or '')
  until #walked < 256
  return { 1, names }
end

local answers = {}
for _, base in ipairs(cmsgpack.unpack(ARGV[1])) do
  answers[#answers + 1] = prefix == '' and whole(base) or of_prefix(base)
end
return answers
