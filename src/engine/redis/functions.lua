#!lua name=@LIBRARY
-- What must happen at once, within the server that holds a bucket.
--
-- Every function gets one key: the bucket's own, which ends in 'b'. The other keys of the bucket begin like it, so that
-- all lie in one hash slot; a stream's keys end in its name:
--   b       epoch, replid, since, floor, series: which incarnation this is, and the highest offset of evicted streams
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

-- How late an append may find what is over; sweeps find it in time.
local SLACK = 10000

local function text(number)
  return string.format('%.0f', number)
end

local function base_of(key)
  return string.sub(key, 1, -2)
end

-- Fails, before anything is changed, where a cluster's server has only a part of the slot: a key that is missing may be
-- at the other one.
local function whole(key)
  redis.call('EXISTS', key .. '?')
end

-- The bucket and what INFO said; nothing if its epoch is not the one of this server's history.
local function bucket_of(key)
  whole(key)
  local info = redis.call('INFO', 'replication')
  if string.find(info, 'role:slave', 1, true) then
    return nil, redis.error_reply('READONLY not the master')
  end
  local held = redis.call('HMGET', key, 'epoch', 'replid', 'floor', 'since')
  if held[2] ~= string.match(info, 'master_replid:(%x+)') then
    return nil, { 'stale' }
  end
  return { epoch = held[1], floor = tonumber(held[3] or 0), since = held[4] or '' }, info
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
    local entries = redis.call('XRANGE', log, text(stream.trimmed + 1), '+', 'COUNT', count)
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
      stream.oldest = tonumber(redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1][2][4])
    end
  end
  return gone
end

-- Forgets the oldest ids: beyond so many, and those recorded by `cutoff`. Returns how many went for their number.
local function forget_ids(base, stream, limit, cutoff)
  local ids = base .. 'q' .. stream.sid
  local early = redis.call('XTRIM', ids, 'MAXLEN', limit)
  local look = early > 0 or (stream.ids and stream.ids <= cutoff)
  local upto
  while look do
    local entries = redis.call('XRANGE', ids, upto and '(' .. upto or '-', '+', 'COUNT', CHUNK)
    stream.ids = nil
    for _, entry in ipairs(entries) do
      local at = tonumber(entry[2][2])
      if at > cutoff then
        stream.ids = at
        break
      end
      upto = entry[1]
    end
    look = not stream.ids and #entries == CHUNK
  end
  if not stream.ids then
    redis.call('DEL', ids)
  elseif upto then
    redis.call('XTRIM', ids, 'MINID', text(tonumber(string.match(upto, '%d+')) + 1))
  end
  return early
end

-- Forgets ended runs: those that ended by `cutoff`, or the first `surplus`.
local function forget_runs(base, sid, cutoff, surplus)
  local order, gone = base .. 'e' .. sid, 0
  while true do
    local runs
    if surplus then
      runs = redis.call('ZRANGE', order, 0, math.min(surplus, 1000) - 1)
      surplus = surplus - #runs
    else
      runs = redis.call('ZRANGEBYSCORE', order, '-inf', cutoff, 'LIMIT', 0, 1000)
    end
    if #runs == 0 then
      return gone
    end
    redis.call('ZREM', order, unpack(runs))
    redis.call('HDEL', base .. 'x' .. sid, unpack(runs))
    gone = gone + #runs
    if surplus and surplus <= 0 then
      return gone
    end
  end
end

-- Adds to a series, or to what it is folded into where the bucket has too many. Whether it was folded.
local function account(base, most, day, places, stats)
  local sums = base .. 'u' .. day
  for rank, series in ipairs(places) do
    local known = redis.call('HEXISTS', sums, 'n' .. series) == 1
    if not known then
      local held = tonumber(redis.call('HGET', base .. 'b', 'series') or 0)
      if rank == 3 or held < most * rank then
        known = true
        redis.call('HINCRBY', base .. 'b', 'series', 1)
        redis.call('SADD', base .. 'y', day)
      end
    end
    if known then
      for at = 1, #stats, 2 do
        local added = redis.pcall('HINCRBY', sums, stats[at] .. series, stats[at + 1])
        if type(added) == 'table' and added.err then
          redis.call('HSET', sums, stats[at] .. series, '9223372036854775807')
        end
      end
      return rank > 1
    end
  end
end

-- Replicas that are online and were heard of lately.
local function replicas(info)
  local count = 0
  for lag in string.gmatch(info, 'state=online,offset=%d+,lag=(%d+)') do
    if tonumber(lag) <= 10 then
      count = count + 1
    end
  end
  return count
end

-- Why a commit decided on `head` of `epoch` cannot be stored now, if so.
local function refused(bucket, base, stream, epoch, head)
  if epoch ~= bucket.epoch or head < stream.trimmed or head > stream.head then
    return { 'reload' }
  end
  if head == stream.head then
    return nil
  end
  if stream.head - head > 256 then
    return { 'reload' }
  end
  local missed = { 'conflict' }
  for _, entry in ipairs(redis.call('XRANGE', base .. 'l' .. stream.sid, text(head + 1), '+')) do
    missed[#missed + 1] = entry[2][6]
  end
  return missed
end

local function append(keys, args)
  local bucket, info = bucket_of(keys[1])
  if not bucket then
    return info
  end
  local base, sid = base_of(keys[1]), args[1]
  local stream = stream_of(base, sid, bucket.floor)
  local answer = refused(bucket, base, stream, args[2], tonumber(args[3]))
  if answer then
    return answer
  end
  local needed = tonumber(args[4])
  if needed > 0 and replicas(info) < needed then
    return { 'replicas' }
  end
  local now = tonumber(args[5])
  local records, bytes, cutoff = tonumber(args[6]), tonumber(args[7]), tonumber(args[8])
  local ids, ids_cutoff, look = tonumber(args[9]), tonumber(args[10]), tonumber(args[11])
  local ended_most, ended_keep = tonumber(args[12]), tonumber(args[13])
  local series_most, hint, hint_most = tonumber(args[14]), args[15], tonumber(args[16])
  local next = 17
  local function take()
    next = next + 1
    return args[next - 1]
  end

  -- From here on nothing fails: what was begun is finished.
  local log, memory = base .. 'l' .. sid, base .. 'q' .. sid
  local count = tonumber(take())
  local told, size = { hint }, 0
  for _ = 1, count do
    local record, weight, at, id = take(), take(), take(), take()
    stream.head = stream.head + 1
    local offset = text(stream.head)
    redis.call('XADD', log, offset, 'w', weight, 'a', at, 'r', record)
    redis.call('XADD', memory, offset, 'a', at, 'i', id)
    stream.bytes = stream.bytes + tonumber(weight)
    stream.oldest = stream.oldest or tonumber(at)
    stream.ids = stream.ids or tonumber(at)
    size = size + #record
    if size <= hint_most then
      told[#told + 1] = struct.pack('>I4', #record)
      told[#told + 1] = record
    end
  end
  local open, over, order = base .. 'o' .. sid, base .. 'x' .. sid, base .. 'e' .. sid
  local forgotten = 0
  for _ = 1, tonumber(take()) do
    local kind, run, at, row = take(), take(), take(), take()
    if kind == 'begins' then
      redis.call('HDEL', over, run)
      redis.call('ZREM', order, run)
    end
    if kind == 'ends' then
      redis.call('HDEL', open, run)
    end
    if kind == 'begins' or kind == 'goes_on' then
      redis.call('HSET', open, run, row)
    else
      redis.call('HSET', over, run, row)
      redis.call('ZADD', order, at, run)
      local held = redis.call('ZCARD', order)
      if held > ended_most then
        forgotten = forgotten + forget_runs(base, sid, nil, held - ended_keep)
      end
    end
  end
  for _ = 1, tonumber(take()) do
    local what, member, at = take(), take(), take()
    if what == 'arm' then
      redis.call('ZADD', base .. 'd', at, member)
    elseif what == 'lower' then
      redis.call('ZADD', base .. 'd', 'XX', 'LT', at, member)
    else
      redis.call('ZREM', base .. 'd', member)
    end
  end
  local folded = 0
  for _ = 1, tonumber(take()) do
    local day, places, stats = take(), { take(), take(), take() }, {}
    for at = 1, 2 * tonumber(take()) do
      stats[at] = take()
    end
    if account(base, series_most, day, places, stats) then
      folded = folded + tonumber(stats[2])
    end
  end
  -- What is over goes some at a time, not one by one.
  if stream.oldest > cutoff - SLACK then
    cutoff = -1
  end
  if stream.ids > ids_cutoff - SLACK then
    ids_cutoff = -1
  end
  local trimmed = trim(base, stream, records, bytes, cutoff, math.huge)
  local early = forget_ids(base, stream, math.max(ids, count), ids_cutoff)
  keep(base, stream, now)
  redis.call('ZADD', base .. 'i', 'LT', look, sid)
  -- A hint only: whoever may not publish stores all the same.
  if size > hint_most then
    told = { hint }
  end
  redis.pcall('SPUBLISH', base .. 'c' .. sid, table.concat(told))
  return { 'ok', trimmed, early, forgotten, folded }
end

local function load(keys, args)
  local bucket, info = bucket_of(keys[1])
  if not bucket then
    return info
  end
  local base, sid = base_of(keys[1]), args[1]
  local stream = stream_of(base, sid, bucket.floor)
  return { 'ok', bucket.epoch, text(stream.head), bucket.since,
    redis.call('HGETALL', base .. 'o' .. sid),
    redis.call('HGETALL', base .. 'x' .. sid),
    redis.call('XRANGE', base .. 'q' .. sid, '-', '+', 'COUNT', args[2]) }
end

local function open_runs(keys, args)
  local bucket, info = bucket_of(keys[1])
  if not bucket then
    return info
  end
  local base, sid = base_of(keys[1]), args[1]
  local stream = stream_of(base, sid, bucket.floor)
  return { 'ok', bucket.epoch, text(stream.head), redis.call('HGETALL', base .. 'o' .. sid) }
end

local function read(keys, args)
  local bucket, info = bucket_of(keys[1])
  if not bucket then
    return info
  end
  local base, sid = base_of(keys[1]), args[1]
  local after, records, bytes = tonumber(args[2]), tonumber(args[3]), tonumber(args[4])
  local stream = stream_of(base, sid, bucket.floor)
  local first = math.max(after, stream.trimmed) + 1
  local page, held, offset = {}, 0, first
  local more = offset <= stream.head
  while more do
    local count = math.min(records - #page, CHUNK)
    local entries = redis.call('XRANGE', base .. 'l' .. sid, text(offset), '+', 'COUNT', count)
    for _, entry in ipairs(entries) do
      held = held + tonumber(entry[2][2])
      if #page > 0 and held > bytes then
        break
      end
      page[#page + 1] = entry[2][6]
    end
    offset = offset + #entries
    more = #entries == count and #page < records and held < bytes
  end
  return { 'ok', bucket.epoch, text(stream.head), text(stream.trimmed), text(first), page }
end

local function heads(keys, args)
  local bucket, info = bucket_of(keys[1])
  if not bucket then
    return info
  end
  local base, answer = base_of(keys[1]), { 'ok', bucket.epoch }
  for at, sid in ipairs(args) do
    answer[at + 2] = redis.call('HGET', base .. 'm' .. sid, 'head') or text(bucket.floor)
  end
  return answer
end

-- Keeps streams from being evicted until `args[1]`.
local function pin(keys, args)
  local bucket, info = bucket_of(keys[1])
  if not bucket then
    return info
  end
  local base, answer = base_of(keys[1]), { 'ok', bucket.epoch }
  for at = 2, #args do
    local sid = args[at]
    local stream = stream_of(base, sid, bucket.floor)
    if not stream.there then
      keep(base, stream, 0)
      redis.call('ZADD', base .. 'i', 'NX', args[1], sid)
    end
    redis.call('HSET', base .. 'm' .. sid, 'pinned', args[1])
    answer[at + 1] = text(stream.head)
  end
  return answer
end

local function look_again(keys, args)
  local bucket, info = bucket_of(keys[1])
  if not bucket then
    return info
  end
  local base, sid = base_of(keys[1]), args[1]
  local stream = stream_of(base, sid, bucket.floor)
  if args[2] == bucket.epoch and tonumber(args[3]) == stream.head then
    for at = 4, #args, 3 do
      if redis.call('HEXISTS', base .. 'o' .. sid, args[at]) == 1 then
        redis.call('ZADD', base .. 'd', args[at + 2], args[at + 1])
      end
    end
  end
  return { 'ok' }
end

-- The server's history is not the one that the bucket's epoch is of: `args[1]` is its epoch now.
local function adopt(keys, args)
  local bucket, answer = bucket_of(keys[1])
  if not bucket and answer.err then
    return answer
  end
  if not bucket then
    local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
    local before = redis.call('HGET', keys[1], 'epoch')
    local since = (before or args[3] == 'lost') and args[2] or ''
    redis.call('HSET', keys[1], 'epoch', args[1], 'replid', replid, 'since', since)
    return { 'ok', 'new' }
  end
  return { 'ok', 'known' }
end

-- Gives back what is over of one stream. When to look at it again; nothing if it is gone.
local function tidy(base, floor, sid, now, ages, counts)
  local stream = stream_of(base, sid, floor)
  counts[1] = counts[1] + trim(base, stream, math.huge, math.huge, now - ages.records, 1000)
  forget_ids(base, stream, 1e15, now - ages.ids)
  forget_runs(base, sid, now - ages.runs)
  local held = redis.call('HMGET', base .. 'm' .. sid, 'touched', 'pinned')
  local touched, pinned = tonumber(held[1] or 0), tonumber(held[2] or 0)
  local ended = redis.call('ZRANGE', base .. 'e' .. sid, 0, 0, 'WITHSCORES')
  local again = math.huge
  local function at(time)
    again = math.min(again, time)
  end
  if stream.oldest then at(stream.oldest + ages.records) end
  if stream.ids then at(stream.ids + ages.ids) end
  if ended[2] then at(tonumber(ended[2]) + ages.runs) end
  if again == math.huge and redis.call('EXISTS', base .. 'o' .. sid) == 0 then
    again = math.max(touched + ages.idle, pinned)
    if again <= now then
      redis.call('DEL', base .. 'm' .. sid)
      return nil, stream.head
    end
  end
  keep(base, stream, touched)
  return again
end

-- Looks at the streams that are due, at most so many, and forgets the usage of days that are over.
local function sweep(keys, args)
  whole(keys[1])
  local base, now = base_of(keys[1]), tonumber(args[1])
  local ages = { records = tonumber(args[2]), ids = tonumber(args[3]), runs = tonumber(args[4]), idle = tonumber(args[5]) }
  local floor = tonumber(redis.call('HGET', keys[1], 'floor') or 0)
  local due = redis.call('ZRANGEBYSCORE', base .. 'i', '-inf', now, 'LIMIT', 0, args[7])
  local counts = { 0 }
  for _, sid in ipairs(due) do
    local again, head = tidy(base, floor, sid, now, ages, counts)
    if again then
      redis.call('ZADD', base .. 'i', again == math.huge and '+inf' or again, sid)
    else
      redis.call('ZREM', base .. 'i', sid)
      if head > floor then
        floor = head
        redis.call('HSET', keys[1], 'floor', text(floor))
      end
    end
  end
  for _, day in ipairs(redis.call('SMEMBERS', base .. 'y')) do
    if tonumber(day) + tonumber(args[6]) <= now then
      local gone = 0
      for _, name in ipairs(redis.call('HKEYS', base .. 'u' .. day)) do
        gone = gone + (string.sub(name, 1, 1) == 'n' and 1 or 0)
      end
      redis.call('UNLINK', base .. 'u' .. day)
      redis.call('SREM', base .. 'y', day)
      redis.call('HINCRBY', keys[1], 'series', -gone)
    end
  end
  return { 'ok', #due, counts[1] }
end

-- The key store: what is under a key, and until when by the callers' clocks.
local function there(key, now)
  local held = redis.call('HMGET', key, 'value', 'put', 'until')
  if held[1] and tonumber(held[3]) > tonumber(now) then
    return { held[1], held[2] }
  end
end

local function set(key, value, now, expires, sweep_in)
  redis.call('HSET', key, 'value', value, 'put', now, 'until', expires)
  redis.call('PEXPIRE', key, sweep_in)
end

local function get(keys, args)
  return there(keys[1], args[1]) or {}
end

local function put(keys, args)
  local held = there(keys[1], args[1])
  if held then
    return held
  end
  set(keys[1], args[2], args[1], args[3], args[4])
  return {}
end

local function replace(keys, args)
  local held = there(keys[1], args[1])
  if not held or held[1] ~= args[5] then
    return {}
  end
  set(keys[1], args[2], args[1], args[3], args[4])
  return { 'ok' }
end

local function register(name, callback, flag)
  redis.register_function { function_name = '@LIBRARY_' .. name, callback = callback, flags = { flag } }
end

register('append', append)
register('load', load, 'no-writes')
register('open_runs', open_runs, 'no-writes')
register('read', read, 'no-writes')
register('heads', heads, 'no-writes')
register('pin', pin, 'allow-oom')
register('look_again', look_again, 'allow-oom')
register('adopt', adopt, 'allow-oom')
register('sweep', sweep, 'allow-oom')
register('get', get, 'no-writes')
register('put', put)
register('replace', replace, 'allow-oom')
