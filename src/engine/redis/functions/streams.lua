#!lua name=@LIBRARY
-- What must happen at once, within the server that holds a bucket.
--
-- Every function gets one key: the bucket's own, which ends in 'b'. The other keys of the bucket begin like it, so that
-- all lie in one hash slot; a stream's keys end in its name:
--   b       epoch, replid, since, floor, series, confirmed: which incarnation this is, the highest offset of evicted streams,
--           how often replicas were waited for without an append
--   i       the bucket's streams by when a sweep is to look at them
--   d       open runs by when the watchdog is to look at them
--   y, u*   days with usage; the sums of one day
--   m*      head, trimmed, bytes, oldest, ids, touched, pinned of a stream
--   l*, q*  its records; what is remembered of its ids; entries of both are named by their offsets
--   o*, x*  its open runs; its ended runs
--   e*      its ended runs by when they ended
--   c*      the channel on which appends are told
--
-- Times are in milliseconds by the caller's clock. Offsets of one stream are dense: head - trimmed records are retained.

-- Entries that are looked at at once.
local CHUNK = 64

-- How much one call forgets of what is over, so that it holds up nobody for long; the rest is for the next.
local FORGOTTEN = 10000

-- How late an append may find what is over; sweeps find it in time.
local SLACK = 10000

local function text(number)
  return string.format('%.0f', number)
end

local function base_of(key)
  return string.sub(key, 1, -2)
end

-- What each key holds.
local TYPES = {
  b = 'hash', i = 'zset', d = 'zset', y = 'set', u = 'hash',
  m = 'hash', l = 'stream', q = 'stream', o = 'hash', x = 'hash', e = 'zset',
}

-- What to answer if another program has put something of another type at `key`. Functions look before their first
-- write: an error between two writes would leave half of what belongs together.
local function mistyped(key, wanted)
  local found = redis.call('TYPE', key).ok
  if found ~= 'none' and found ~= wanted then
    return { 'mistyped', key, found, wanted }
  end
end

-- The same for some of a bucket's and a stream's keys: `kinds` are their letters.
local function mistyped_among(base, sid, kinds)
  for kind in string.gmatch(kinds, '.') do
    local of_bucket = string.find('bidy', kind, 1, true)
    local answer = mistyped(base .. kind .. (of_bucket and '' or sid), TYPES[kind])
    if answer then
      return answer
    end
  end
end

-- Fails, before anything is changed, where a cluster's server has only a part of the slot: a key that is missing may be
-- at the other one.
local function whole(key)
  redis.call('EXISTS', key .. '?')
end

-- The bucket, with what INFO said; nothing, and what to answer, if its epoch is not the one of this server's history.
local function bucket_of(key)
  whole(key)
  local info = redis.call('INFO', 'replication')
  if string.find(info, 'role:slave', 1, true) then
    return nil, redis.error_reply('READONLY not the master')
  end
  local wrong = mistyped(key, TYPES.b)
  if wrong then
    return nil, wrong
  end
  local held = redis.call('HMGET', key, 'epoch', 'replid', 'floor', 'since')
  if held[2] ~= string.match(info, 'master_replid:(%x+)') then
    return nil, { 'stale' }
  end
  return { epoch = held[1], floor = tonumber(held[3] or 0), since = held[4] or '', info = info }
end

-- What is known of a stream. One that does not exist stands where the last one that was evicted stood.
local function stream_of(base, sid, floor)
  local held = redis.call('HMGET', base .. 'm' .. sid, 'head', 'trimmed', 'bytes', 'oldest', 'ids')
  return {
    sid = sid,
    there = held[1] and true,
    head = tonumber(held[1] or floor),
    trimmed = tonumber(held[2] or floor),
    bytes = tonumber(held[3] or 0),
    oldest = tonumber(held[4] or nil),
    ids = tonumber(held[5] or nil),
  }
end

local function keep(base, stream, touched)
  redis.call('HSET', base .. 'm' .. stream.sid, 'head', stream.head, 'trimmed', stream.trimmed,
    'bytes', stream.bytes, 'oldest', stream.oldest or '', 'ids', stream.ids or '', 'touched', touched)
end

-- Drops the oldest records: beyond so many, beyond so many bytes, and those recorded by `cutoff`. At most `most`.
local function trim(base, stream, records, bytes, cutoff, most)
  local log = base .. 'l' .. stream.sid
  local count, gone, looked = 1, 0, true
  local surplus = function()
    return stream.head - stream.trimmed > records or stream.bytes > bytes or stream.oldest <= cutoff
  end
  while stream.oldest and gone < most and surplus() do
    local entries = redis.call('XRANGE', log, text(stream.trimmed + 1), text(stream.head), 'COUNT', count)
    for _, entry in ipairs(entries) do
      stream.oldest, looked = tonumber(entry[2][4]), true
      if gone == most or not surplus() then
        break
      end
      stream.bytes = stream.bytes - tonumber(entry[2][2])
      stream.trimmed = stream.trimmed + 1
      gone, looked = gone + 1, false
    end
    if stream.trimmed == stream.head or #entries == 0 then
      stream.oldest = nil
    end
    count = math.min(count * 2, CHUNK)
  end
  if not stream.oldest then
    redis.call('DEL', log)
    stream.bytes, stream.trimmed = 0, stream.head
  elseif gone > 0 then
    redis.call('XTRIM', log, 'MINID', text(stream.trimmed + 1))
    if not looked then
      local first = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
      stream.oldest = first and tonumber(first[2][4])
    end
  end
  return gone
end

-- Forgets the oldest ids: beyond so many, and, at most `most`, those recorded by `cutoff`. Returns how many went for
-- their number, and how many were too old.
local function forget_ids(base, stream, limit, cutoff, most)
  local ids = base .. 'q' .. stream.sid
  local early = redis.call('XTRIM', ids, 'MAXLEN', limit)
  local look = early > 0 or (stream.ids and stream.ids <= cutoff)
  local upto, gone = nil, 0
  while look do
    local entries = redis.call('XRANGE', ids, upto and '(' .. upto or '-', '+', 'COUNT', CHUNK)
    stream.ids = nil
    for _, entry in ipairs(entries) do
      local at = tonumber(entry[2][2])
      if at > cutoff or gone == most then
        stream.ids = at
        break
      end
      upto, gone = entry[1], gone + 1
    end
    look = not stream.ids and #entries == CHUNK
  end
  if not stream.ids then
    redis.call('DEL', ids)
  elseif upto then
    redis.call('XTRIM', ids, 'MINID', text(tonumber(string.match(upto, '%d+')) + 1))
  end
  return early, gone
end

-- Forgets ended runs, those that ended first: at most `most`, and if there is a `cutoff` only what ended by then.
local function forget_runs(base, sid, most, cutoff)
  local order, gone = base .. 'e' .. sid, 0
  while gone < most do
    local runs = redis.call('ZRANGEBYSCORE', order, '-inf', cutoff or '+inf', 'LIMIT', 0, math.min(most - gone, 1000))
    if #runs == 0 then
      break
    end
    redis.call('ZREM', order, unpack(runs))
    redis.call('HDEL', base .. 'x' .. sid, unpack(runs))
    gone = gone + #runs
  end
  return gone
end

local function register(name, callback, flag)
  redis.register_function { function_name = '@LIBRARY_' .. name, callback = callback, flags = { flag } }
end

-- What is called only where the bucket's epoch is the one of this server's history.
local function of_bucket(callback)
  return function(keys, args)
    local bucket, answer = bucket_of(keys[1])
    if not bucket then
      return answer
    end
    return callback(bucket, base_of(keys[1]), args)
  end
end

-- The same, for the stream `args[1]`. `kinds` are the letters of the keys that the function uses.
local function of_stream(callback, kinds)
  return of_bucket(function(bucket, base, args)
    local wrong = mistyped_among(base, args[1], 'm' .. kinds)
    if wrong then
      return wrong
    end
    return callback(bucket, base, stream_of(base, args[1], bucket.floor), args)
  end)
end
