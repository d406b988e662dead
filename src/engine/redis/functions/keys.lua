
-- The key store: its functions get the key itself. What is under it, and until when by the callers' clocks.
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

local function of_key(callback)
  return function(keys, args)
    return mistyped(keys[1], 'hash') or callback(keys, args)
  end
end

register('get', of_key(get), 'no-writes')
register('put', of_key(put))
register('replace', of_key(replace), 'allow-oom')
