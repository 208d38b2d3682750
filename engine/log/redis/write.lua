-- A round: writes, carried out in order, each by itself.
-- KEYS[1] what is remembered of this writer's last round. ARGV[1] the number of this one, ARGV[2] the writes,
-- ARGV[3] how those are told of them that follow a session: PUBLISH, SPUBLISH in a cluster, or '' where nobody does.
-- ARGV[4] the number of the last round that this writer was answered, 0 where it does not matter.
--
-- Answers for each write 0 when it landed, 1 when what is stored of its session is damaged, or where the session stands
-- that refused it: {} or {epoch, tail, token, owner, deleted, doubted}. A round that comes again changes nothing and gets
-- the same answer. One that comes after a later one is refused: nobody waits for it any more. Where the store does not
-- remember what it has answered, it went back: the answer is the number that it remembers, and nothing is carried out.

local round = tonumber(ARGV[1])
local remembered = redis.call('GET', KEYS[1])
local number, known = 0, nil
if remembered then
  number, known = unpack(cmsgpack.unpack(remembered))
end
if number > round then
  return redis.error_reply('LATE this writer has gone on since')
elseif number < tonumber(ARGV[4]) then
  return number
end

-- Whether the write may land. The order of the questions is that of engine/log/fence.py, which tells the caller why not.
local function admits(at, w)
  if w.kind == 'create' then
    if at and (not at.deleted or at.epoch == w.epoch or w.token < at.token) then
      return false
    end
    return w.tail == 0
  elseif not at then
    return false
  elseif w.forced then
    return true
  elseif at.deleted or (w.kind ~= 'release' and at.epoch ~= w.epoch) then
    return false
  elseif w.kind == 'keep' then
    return true
  elseif w.kind == 'compact' then
    return not at.doubted
  elseif w.kind == 'claim' then
    return w.seen == at.token
  elseif w.token < at.token then
    return false
  elseif w.kind == 'release' then
    return w.owner == at.owner
  end
  return w.kind == 'delete' or (not at.doubted and w.tail == at.tail)
end

local function set_record(w, key, value)
  local plain = not string.find(key, '/', 1, true)
  local held = records_key(plain and 'q' or 'r', w.base, w.session, w.epoch)
  local index, member = records_key('k', w.base, w.session, w.epoch), key
  if plain then
    index, member = w.base .. 'i' .. key, w.session
  end
  if value then
    redis.call('HSET', held, key, value)
    redis.call('ZADD', index, 0, member)
  else
    redis.call('HDEL', held, key)
    redis.call('ZREM', index, member)
  end
end

local function set_records(w)
  for _, pair in ipairs(w.records or {}) do
    set_record(w, pair[1], pair[2])
  end
end

local function set_summary(w)
  if w.place then
    local head = w.base .. 'h' .. w.session
    local former = redis.call('HGET', head, 'r')
    if former ~= w.place then
      if former then
        redis.call('ZREM', w.base .. 'by', former .. w.session)
      end
      redis.call('ZADD', w.base .. 'by', 0, w.place .. w.session)
    end
    redis.call('HSET', head, 'r', w.place, 'm', w.body)
  end
end

local function store_events(w)
  local offset, fields, block = w.tail, {}, nil
  for _, body in ipairs(w.events) do
    offset = offset + 1
    if block_of(offset) ~= block then
      if #fields > 0 then
        redis.call('HSET', events_key(w.base, w.session, w.epoch, block), unpack(fields))
      end
      fields, block = {}, block_of(offset)
    end
    fields[#fields + 1] = text(offset)
    fields[#fields + 1] = body
  end
  if #fields > 0 then
    redis.call('HSET', events_key(w.base, w.session, w.epoch, block), unpack(fields))
  end
  return offset
end

local function set_lineage(w)
  local head, lineage = w.base .. 'h' .. w.session, lineage_of(w.base)
  if lineage == '' then
    redis.call('HDEL', head, 'l')
  else
    redis.call('HSET', head, 'l', lineage)
  end
end

local function append(w)
  local tail = store_events(w)
  local head = w.base .. 'h' .. w.session
  if w.kind == 'create' then
    redis.call('HDEL', head, 'd')
    redis.call('HSET', head, 'e', w.epoch, 't', text(tail), 'k', text(w.token), 'o', w.owner)
    set_lineage(w)
    redis.call('ZADD', w.base .. 'all', 0, w.session)
  else
    redis.call('HSET', head, 't', text(tail), 'k', text(w.token))
  end
  set_records(w)
  set_summary(w)
end

-- The tombstone stays. Memory is given back aside, by UNLINK.
local function delete(at, w)
  local head = w.base .. 'h' .. w.session
  local place = redis.call('HGET', head, 'r')
  if place then
    redis.call('ZREM', w.base .. 'by', place .. w.session)
  end
  redis.call('ZREM', w.base .. 'all', w.session)
  if at.epoch then
    local plain = records_key('q', w.base, w.session, at.epoch)
    for _, key in ipairs(redis.call('HKEYS', plain)) do
      redis.call('ZREM', w.base .. 'i' .. key, w.session)
    end
    redis.call('UNLINK', plain, records_key('r', w.base, w.session, at.epoch))
    redis.call('UNLINK', records_key('k', w.base, w.session, at.epoch))
    for block = 0, block_of(at.tail or 0) do
      redis.call('UNLINK', events_key(w.base, w.session, at.epoch, block))
    end
  end
  redis.call('HDEL', head, 'r', 'm')
  redis.call('HSET', head, 'd', '1', 'o', '', 'e', w.epoch, 'k', text(w.token))
  if w.forced then
    redis.call('HSET', head, 't', '0')
  end
end

local function compact(w)
  for _, pair in ipairs(w.replace) do
    local key, offset = events_key(w.base, w.session, w.epoch, block_of(pair[1])), text(pair[1])
    if redis.call('HEXISTS', key, offset) == 1 then
      redis.call('HSET', key, offset, pair[2])
    end
  end
  local gone = {}
  for _, offset in ipairs(w.remove) do
    local key = events_key(w.base, w.session, w.epoch, block_of(offset))
    gone[key] = gone[key] or {}
    table.insert(gone[key], text(offset))
  end
  for key, offsets in pairs(gone) do
    redis.call('HDEL', key, unpack(offsets))
  end
  set_records(w)
  for _, pair in ipairs(w.forget) do
    local plain = not string.find(pair[1], '/', 1, true)
    if redis.call('HGET', records_key(plain and 'q' or 'r', w.base, w.session, w.epoch), pair[1]) == pair[2] then
      set_record(w, pair[1], nil)
    end
  end
end

-- For a delete that believes nothing: what is not of the type it must be is no part of the session.
local function make_room(w)
  local head = w.base .. 'h' .. w.session
  local function clear(key)
    local kind = redis.call('TYPE', key).ok
    if kind ~= 'hash' and kind ~= 'none' then
      redis.call('UNLINK', key)
      redis.call('HSET', head, 'e', w.epoch)
    end
  end
  clear(head)
  local epoch = redis.call('HGET', head, 'e')
  if epoch then
    clear(records_key('q', w.base, w.session, epoch))
  end
end

-- All checks of a write come before its first change: Lua takes nothing back. What can fail from there on is a key that
-- somebody else has made something else of, and a store that takes no writes, which it says before the first of a round.
local function carry_out(w)
  if w.forced then
    make_room(w)
  end
  local at = standing_of(w.base, w.session)
  if at and not w.forced and not (at.epoch and at.token and (at.tail or at.deleted)) then
    return 1
  end
  if not admits(at, w) then
    return at and { at.epoch, at.tail or 0, at.token, at.owner, at.deleted and 1 or 0, at.doubted and 1 or 0 } or {}
  end
  if w.kind == 'create' or w.kind == 'append' then
    append(w)
  elseif w.kind == 'keep' then
    set_records(w)
  elseif w.kind == 'claim' or w.kind == 'release' then
    local owner = w.kind == 'claim' and w.owner or ''
    redis.call('HSET', w.base .. 'h' .. w.session, 'k', text(w.token), 'o', owner)
    if w.kind == 'claim' then
      set_record(w, w.key, w.said .. text(at.tail) .. '}')
    end
    if w.anew then
      redis.call('HSET', w.base .. 'h' .. w.session, 'e', w.anew)
      set_lineage(w)
    end
  elseif w.kind == 'delete' then
    delete(at, w)
  else
    compact(w)
  end
  return 0
end

local TOLD = 64 * 1024 -- bytes; who is told of more than that looks at the log
local VERB = ARGV[3]
local COUNTS = VERB == 'SPUBLISH' and 'SHARDNUMSUB' or 'NUMSUB'

-- A message is empty, or the epoch, the first offset and the lengths of the bodies in one line, and then the bodies.
local function tell(w)
  if w.kind == 'keep' or w.kind == 'compact' or (w.kind == 'append' and #w.events == 0) then
    return
  end
  local channel = w.base .. 'c' .. w.session
  if redis.call('PUBSUB', COUNTS, channel)[2] == 0 then
    return
  end
  local told, size = { w.epoch, text((w.tail or 0) + 1) }, 0
  for _, body in ipairs(w.events or {}) do
    told[#told + 1] = #body
    size = size + #body
  end
  if w.events and size <= TOLD then
    redis.call(VERB, channel, table.concat(told, ' ') .. '\n' .. table.concat(w.events))
  else
    redis.call(VERB, channel, '')
  end
end

local writes, verdicts = cmsgpack.unpack(ARGV[2]), {}

-- Once more, for its answer was lost, or nobody was to be told before replicas had it. A write comes of it, so that
-- WAITAOF on this connection waits for what the round has written, too.
if number == round then
  redis.call('PEXPIRE', KEYS[1], 86400000)
  for place, w in ipairs(writes) do
    if known[place] == 0 and VERB ~= '' then
      tell(w)
    end
  end
  return known
end

for _, w in ipairs(writes) do
  local verdict = guarded(1, carry_out, w)
  verdicts[#verdicts + 1] = verdict
  if verdict == 0 and VERB ~= '' then
    tell(w)
  end
end
redis.call('SET', KEYS[1], cmsgpack.pack({ round, verdicts }), 'PX', 86400000)
return verdicts
