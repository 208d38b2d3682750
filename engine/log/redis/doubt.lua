-- The store has gone back, or is said to have: put what it holds in doubt.
-- KEYS[1] what is remembered of a writer, or any key there. ARGV[1] the bases of all shards that went back with it, ARGV[2] another lineage, ARGV[3] how
-- that is known, and ARGV[4] what of:
--
--   round    the writer was answered the round of this number, and it is not there. From here on it is remembered.
--            All is in doubt, but not twice for the same: another writer may have said it.
--   missed   {base, session, epoch, tail, token}: the session stood there, and does not any more.
--   said     the same, but by somebody who may be mistaken: that session alone, once for each run of the store.
--   all      somebody who knows it says so.
--
-- Answers 1 where something is in doubt now that was not, or 0.

local SAME = 60 -- seconds in which writers tell of what they have lost

local bases, lineage, how = cmsgpack.unpack(ARGV[1]), ARGV[2], ARGV[3]

-- Another one in each process that a store was, and whenever a replica became the primary.
local told = redis.call('INFO', 'server') .. redis.call('INFO', 'replication')
local run = (string.match(told, 'run_id:(%w+)') or '') .. (string.match(told, 'master_replid:(%w+)') or '')
local now = tonumber(redis.call('TIME')[1])

local function went_back(base, session, epoch, tail, token)
  local at = standing_of(base, session)
  if not at or at.deleted or at.doubted or not (at.epoch and at.tail and at.token) then
    return false
  elseif life_of(at.epoch) ~= life_of(epoch) then
    return false
  end
  return at.token < token or (at.epoch == epoch and at.tail < tail)
end

if how == 'round' then
  redis.call('SET', KEYS[1], cmsgpack.pack({ cmsgpack.unpack(ARGV[4]), {} }), 'PX', 86400000)
  local past = redis.call('HMGET', bases[1] .. 'past', 'run', 'at')
  if past[1] == run and now - tonumber(past[2]) < SAME then
    return 0
  end
elseif how ~= 'all' then
  local missed = cmsgpack.unpack(ARGV[4])
  if not guarded(false, went_back, unpack(missed)) then
    return 0
  end
  if how == 'said' then
    local head = missed[1] .. 'h' .. missed[2]
    if redis.call('HGET', head, 'u') == run then
      return 0
    end
    redis.call('HSET', head, 'u', run, 'l', 'doubted')
    return 1
  end
end
for _, base in ipairs(bases) do
  redis.call('HSET', base .. 'past', 'l', lineage, 'run', run, 'at', text(now))
end
return 1
