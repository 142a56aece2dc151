-- Starts a generation of one channel, unless the channel is already in this one or a later one: so instances that do
-- this at the same time agree on the latest.
--
-- KEYS: state, stream, pending, in flight. ARGV: epoch, generation, the number that the next event must be above, the number
-- that all events of the epoch are above, the channel.
-- Returns 1, or 0 and writes nothing: readers have been shown more of this epoch than the caller knows.
local state = redis.call('HMGET', KEYS[1], 'generation', 'epoch', 'head')
if tonumber(state[1] or '0') >= tonumber(ARGV[2]) then return 1 end
if state[2] == ARGV[1] and tonumber(state[3] or '0') > tonumber(ARGV[3]) then return 0 end
redis.call('DEL', KEYS[2], KEYS[3])
redis.call('ZREM', KEYS[4], ARGV[5])
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'generation', ARGV[2], 'head', ARGV[3], 'given', ARGV[3], 'seed', ARGV[3],
  'base', ARGV[4])
return 1
