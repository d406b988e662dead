
-- What an append stores, all of it or nothing.

-- Adds to a series, or to what it is folded into where the bucket has too many. Whether it was folded.
local function account(base, most, day, places, stats)
  local sums = base .. 'u' .. day
  for rank, series in ipairs(places) do
    local known = redis.call('HEXISTS', sums, 'n' .. series) == 1
    if not known then
      local held = tonumber(redis.call('HGET', base .. 'b', 'series') or 0) or 0
      if rank == 3 or held < most * rank then
        known = true
        redis.call('HSET', base .. 'b', 'series', text(held + 1))
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
  for _, entry in ipairs(redis.call('XRANGE', base .. 'l' .. stream.sid, text(head + 1), text(stream.head))) do
    missed[#missed + 1] = entry[2][6]
  end
  return missed
end

-- Removes what stands beyond the head: an append that failed between its writes was refused, and its events are not to
-- be seen.
local function cut(key, head)
  repeat
    local beyond = redis.call('XRANGE', key, text(head + 1), '+', 'COUNT', CHUNK)
    for _, entry in ipairs(beyond) do
      redis.call('XDEL', key, entry[1])
    end
  until #beyond < CHUNK
end

-- Adds an entry at `offset`. Where entries beyond the head were removed, the stream still remembers the last of them,
-- and refuses until it is told the one before `offset`.
local function add(key, offset, ...)
  local added = redis.pcall('XADD', key, text(offset), ...)
  if type(added) == 'table' and added.err then
    redis.call('XSETID', key, text(offset - 1))
    redis.call('XADD', key, text(offset), ...)
  end
end

local function append(bucket, base, stream, args)
  local sid = stream.sid
  local answer = refused(bucket, base, stream, args[2], tonumber(args[3]))
  if answer then
    return answer
  end
  local needed = tonumber(args[4])
  if needed > 0 and replicas(bucket.info) < needed then
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

  local sums = {}
  for at = 1, tonumber(take()) do
    local day, places, stats = take(), { take(), take(), take() }, {}
    for stat = 1, 2 * tonumber(take()) do
      stats[stat] = take()
    end
    local wrong = mistyped(base .. 'u' .. day, TYPES.u)
    if wrong then
      return wrong
    end
    sums[at] = { day = day, places = places, stats = stats }
  end

  -- The keys' types were looked at: from here on nothing fails, and what was begun is finished.
  local log, memory = base .. 'l' .. sid, base .. 'q' .. sid
  local count = tonumber(take())
  local told, size = { hint }, 0
  cut(log, stream.head)
  cut(memory, stream.head)
  for _ = 1, count do
    local record, weight, at, id = take(), take(), take(), take()
    stream.head = stream.head + 1
    add(log, stream.head, 'w', weight, 'a', at, 'r', record)
    add(memory, stream.head, 'a', at, 'i', id)
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
        forgotten = forgotten + forget_runs(base, sid, held - ended_keep)
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
  for _, sum in ipairs(sums) do
    if account(base, series_most, sum.day, sum.places, sum.stats) then
      folded = folded + tonumber(sum.stats[2])
    end
  end
  -- What is over goes some at a time, not one by one.
  if stream.oldest > cutoff - SLACK then
    cutoff = -1
  end
  if stream.ids > ids_cutoff - SLACK then
    ids_cutoff = -1
  end
  local trimmed = trim(base, stream, records, bytes, cutoff, FORGOTTEN)
  local early = forget_ids(base, stream, math.max(ids, count), ids_cutoff, FORGOTTEN)
  keep(base, stream, now)
  redis.call('ZADD', base .. 'i', 'LT', look, sid)
  -- A hint only: whoever may not publish stores all the same.
  if size > hint_most then
    told = { hint }
  end
  redis.pcall('SPUBLISH', base .. 'c' .. sid, table.concat(told))
  return { 'ok', trimmed, early, forgotten, folded }
end

register('append', of_stream(append, 'lqoxediy'))
