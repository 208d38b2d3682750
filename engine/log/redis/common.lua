-- Stands before each script. `base` is a shard's hash tag, such as {penstock:7}: all keys of a shard begin with it.
--
--   h<session>              hash     e epoch, t tail, k token, o owner, d deleted, r and m the summary: place and body,
--                                    l lineage, u the run of the store in which it was last put in doubt alone
--   v<session>:<life>:<b>   hash     events by offset, those of 1000 offsets each
--   q<session>:<life>       hash     records with a plain key
--   r<session>:<life>       hash     the others
--   k<session>:<life>       zset     their keys, in order
--   past                    hash     l lineage: another one whenever the store has gone back; run and at: when that was
--   all                     zset     living sessions, in order of id
--   by                      zset     those with a summary, as <place><session>: the highest rank is the lowest place
--   i<key>                  zset     living sessions with a plain record
--   b<writer>               string   what a writer's last round said
--
-- A session is in doubt while its lineage is not the shard's. Its epoch is another one then, and its life the same: what
-- stands before the R.
--
-- The zsets hold names alone (every score is 0), so that Redis has them in the order of their bytes. No script compares
-- names by < : Lua does it as the server's locale says.

local SPAN = 1000

-- A whole number as text: Lua itself writes 1e+15.
local function text(number)
  return string.format('%.0f', number)
end

local function block_of(offset)
  return math.floor(offset / SPAN)
end

local function life_of(epoch)
  return string.match(epoch, '^[^R]*')
end

local function events_key(base, session, epoch, block)
  return base .. 'v' .. session .. ':' .. life_of(epoch) .. ':' .. text(block)
end

local function records_key(kind, base, session, epoch)
  return base .. kind .. session .. ':' .. life_of(epoch)
end

local lineages = {}

local function lineage_of(base)
  lineages[base] = lineages[base] or redis.call('HGET', base .. 'past', 'l') or ''
  return lineages[base]
end

-- Where the session stands: nil when there never was one, and no number where what is stored is none. Raises WRONGTYPE.
local function standing_of(base, session)
  local h = redis.call('HMGET', base .. 'h' .. session, 'e', 't', 'k', 'o', 'd', 'l')
  if not (h[1] or h[2] or h[3] or h[4] or h[5]) then
    return nil
  end
  return {
    epoch = h[1],
    tail = tonumber(h[2] or ''),
    token = tonumber(h[3] or ''),
    owner = h[4] or '',
    deleted = h[5],
    doubted = (h[6] or '') ~= lineage_of(base),
  }
end

-- Whether this life goes on; without an epoch, whether the session has a living one.
local function lives(at, epoch)
  return at and not at.deleted and at.epoch and (epoch == '' or at.epoch == epoch)
end

-- All that a script can be told of a session's keys that somebody else has made something else of.
local function is_damage(error)
  return string.find(type(error) == 'table' and error.err or error, 'WRONGTYPE', 1, true) ~= nil
end

-- What `act` returns, or `otherwise` where the session is damaged.
local function guarded(otherwise, act, ...)
  local well, answer = pcall(act, ...)
  if well then
    return answer
  elseif is_damage(answer) then
    return otherwise
  end
  error(answer, 0) -- as it is: the code comes first
end
