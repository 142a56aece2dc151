-- What Redis has of a channel at one moment.
--
-- KEYS: state, stream, pending. ARGV: the stream id to read from, how many events.
-- Returns the state's fields, the ids of the newest events that the stream and the pending ever had, and the events.
local function last(key)
  local info = redis.pcall('XINFO', 'STREAM', key)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
  return false
end

local state = redis.call('HMGET', KEYS[1], 'epoch', 'generation', 'head', 'given', 'base', 'seed')
local events = {}
if tonumber(ARGV[2]) > 0 then events = redis.call('XRANGE', KEYS[2], ARGV[1], '+', 'COUNT', ARGV[2]) end
return { state, last(KEYS[2]), last(KEYS[3]), events }
