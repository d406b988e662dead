
-- What comes after appends, or is kept up beside them.

-- Keeps streams from being evicted until `args[1]`.
local function pin(bucket, base, args)
  local wrong = mistyped(base .. 'i', TYPES.i)
  if wrong then
    return wrong
  end
  local answer = { 'ok', bucket.epoch }
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

local function look_again(bucket, base, stream, args)
  if args[2] == bucket.epoch and tonumber(args[3]) == stream.head then
    for at = 4, #args, 3 do
      if redis.call('HEXISTS', base .. 'o' .. stream.sid, args[at]) == 1 then
        redis.call('ZADD', base .. 'd', args[at + 2], args[at + 1])
      end
    end
  end
  return { 'ok' }
end

-- The server's history is not the one that the bucket's epoch is of: `args[1]` is its epoch now.
local function adopt(keys, args)
  local bucket, answer = bucket_of(keys[1])
  if not bucket and (answer.err or answer[1] == 'mistyped') then
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

-- Asked by a node that knew the bucket under another epoch: since when this one is, which is `args[1]` if nobody has said so.
-- Only who knew the bucket can tell a store that has lost everything from a new one.
local function lost(bucket, base, args)
  if bucket.since == '' then
    redis.call('HSET', base .. 'b', 'since', args[1])
    return { 'ok', args[1] }
  end
  return { 'ok', bucket.since }
end

-- Whether the bucket's epoch is still `args[1]`. It writes, so that replicas which have this have all that came before.
local function confirm(bucket, base, args)
  if bucket.epoch ~= args[1] then
    return { 'reload' }
  end
  redis.call('HINCRBY', base .. 'b', 'confirmed', 1)
  return { 'ok' }
end

-- Gives back what is over of one stream, as far as `done` has something left to do. When to look at it again; nothing if
-- it is gone.
local function tidy(base, floor, sid, now, ages, done)
  local stream = stream_of(base, sid, floor)
  local trimmed = trim(base, stream, math.huge, math.huge, now - ages.records, math.min(1000, done.left))
  done.trimmed, done.left = done.trimmed + trimmed, done.left - trimmed
  local _, ids = forget_ids(base, stream, 1e15, now - ages.ids, done.left)
  done.left = done.left - ids
  done.left = done.left - forget_runs(base, sid, done.left, now - ages.runs)
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

-- Looks at the streams that are due, at most so many, and forgets the usage of days that are over. Whether there is more.
local function sweep(keys, args)
  whole(keys[1])
  local base, now = base_of(keys[1]), tonumber(args[1])
  local wrong = mistyped_among(base, '', 'biy')
  if wrong then
    return wrong
  end
  local ages = { records = tonumber(args[2]), ids = tonumber(args[3]), runs = tonumber(args[4]), idle = tonumber(args[5]) }
  local floor = tonumber(redis.call('HGET', keys[1], 'floor') or 0)
  local due = redis.call('ZRANGEBYSCORE', base .. 'i', '-inf', now, 'LIMIT', 0, args[7])
  local done = { trimmed = 0, left = FORGOTTEN }
  for _, sid in ipairs(due) do
    local again, head
    local found = mistyped_among(base, sid, 'mlqoxe')
    if found then
      -- The others are looked at all the same, and this one later.
      wrong, again = found, now + ages.idle
    else
      again, head = tidy(base, floor, sid, now, ages, done)
    end
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
    local found = mistyped(base .. 'u' .. day, TYPES.u)
    wrong = wrong or found
    if not found and tonumber(day) + tonumber(args[6]) <= now then
      local gone = 0
      for _, name in ipairs(redis.call('HKEYS', base .. 'u' .. day)) do
        gone = gone + (string.sub(name, 1, 1) == 'n' and 1 or 0)
      end
      redis.call('UNLINK', base .. 'u' .. day)
      redis.call('SREM', base .. 'y', day)
      redis.call('HINCRBY', keys[1], 'series', -gone)
    end
  end
  local more = #due == tonumber(args[7]) or done.left == 0
  return { 'ok', more and 1 or 0, done.trimmed, wrong or {} }
end

register('pin', of_bucket(pin), 'allow-oom')
register('look_again', of_stream(look_again, 'od'), 'allow-oom')
register('adopt', adopt, 'allow-oom')
register('lost', of_bucket(lost), 'allow-oom')
register('confirm', of_bucket(confirm), 'allow-oom')
register('sweep', sweep, 'allow-oom')
