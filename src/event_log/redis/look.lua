-- What Redis has of a channel at one moment.
--
-- KEYS: state, stream. ARGV: the stream id to read from, how many events.
-- Returns the state's fields, the id of the newest event that the stream ever had, and the events.
local state = redis.call('HMGET', KEYS[1], 'epoch', 'generation', 'head', 'given', 'base', 'seed')
local info = redis.pcall('XINFO', 'STREAM', KEYS[2])
local last = false
for i = 1, #info, 2 do
  if info[i] == 'last-generated-id' then last = info[i + 1] end
end
local events = {}
if tonumber(ARGV[2]) > 0 then events = redis.call('XRANGE', KEYS[2], ARGV[1], '+', 'COUNT', ARGV[2]) end
return { state, last, events }
