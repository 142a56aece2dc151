-- What Redis has of a channel at one moment.
--
-- KEYS: state, stream, pending. ARGV: the stream id to read from, how many events, how many bytes of them.
-- Returns the state's fields, the ids of the newest events that the stream and the pending ever had, and the events: at
-- least one if there are any, and none behind the one that brings them to so many bytes.
local function last(key)
  local info = redis.pcall('XINFO', 'STREAM', key)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
  return false
end

-- A few at a time: events may be large, and only a few of them are wanted then.
local function read(from, most, bytes)
  local events = {}
  while #events < most and bytes > 0 do
    local wanted = math.min(most - #events, 16)
    local some = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', wanted)
    for _, event in ipairs(some) do
      if bytes <= 0 then return events end
      events[#events + 1] = event
      for _, text in ipairs(event[2]) do bytes = bytes - #text end
    end
    if #some < wanted then return events end
    from = string.format('%.0f-0', tonumber(string.match(some[#some][1], '^%d+')) + 1)
  end
  return events
end

local state = redis.call('HMGET', KEYS[1], 'epoch', 'generation', 'head', 'given', 'base', 'seed')
return { state, last(KEYS[2]), last(KEYS[3]), read(ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])) }
