-- Starts an epoch of one channel, unless the channel is already in this generation or a later one: so instances that
-- do this at the same time agree on the latest.
--
-- KEYS: state, stream. ARGV: epoch, generation, the number that the next event must be above.
local generation = tonumber(redis.call('HGET', KEYS[1], 'generation') or '0')
if generation >= tonumber(ARGV[2]) then return 0 end
local head = math.max(tonumber(redis.call('HGET', KEYS[1], 'head') or '0'), tonumber(ARGV[3]))
local text = string.format('%.0f', head)
redis.call('DEL', KEYS[2])
redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'generation', ARGV[2], 'head', text, 'base', text)
return 1
