
-- What only reads, and is run also where the store is full.

local function load(bucket, base, stream, args)
  local sid = stream.sid
  return { 'ok', bucket.epoch, text(stream.head), bucket.since,
    redis.call('HGETALL', base .. 'o' .. sid),
    redis.call('HGETALL', base .. 'x' .. sid),
    redis.call('XRANGE', base .. 'q' .. sid, '-', text(stream.head), 'COUNT', args[2]) }
end

local function open_runs(bucket, base, stream, args)
  return { 'ok', bucket.epoch, text(stream.head), redis.call('HGETALL', base .. 'o' .. stream.sid) }
end

local function read(bucket, base, stream, args)
  local log = base .. 'l' .. stream.sid
  local after, records, bytes = tonumber(args[2]), tonumber(args[3]), tonumber(args[4])
  local first = math.max(after, stream.trimmed) + 1
  local page, held, offset = {}, 0, first
  local more = offset <= stream.head
  while more do
    local count = math.min(records - #page, CHUNK)
    local entries = redis.call('XRANGE', log, text(offset), text(stream.head), 'COUNT', count)
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

local function heads(bucket, base, args)
  local answer = { 'ok', bucket.epoch }
  for at, sid in ipairs(args) do
    answer[at + 2] = redis.call('HGET', base .. 'm' .. sid, 'head') or text(bucket.floor)
  end
  return answer
end

-- Seconds and microseconds by the server's clock.
local function clock()
  return redis.call('TIME')
end

register('clock', clock, 'no-writes')
register('load', of_stream(load, 'oxq'), 'no-writes')
register('open_runs', of_stream(open_runs, 'o'), 'no-writes')
register('read', of_stream(read, 'l'), 'no-writes')
register('heads', of_bucket(heads), 'no-writes')
