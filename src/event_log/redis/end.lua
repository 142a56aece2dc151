-- Forgets a channel in which there is nothing.
--
-- KEYS: state, stream, pending. ARGV: the generation and the head that the caller knows.
-- Returns 1, or 0 and writes nothing: it is not what the caller knows, or there are events.
local state = redis.call('HMGET', KEYS[1], 'generation', 'head', 'given')
if state[1] ~= ARGV[1] or state[2] ~= state[3] or tonumber(state[2]) ~= tonumber(ARGV[2]) then return 0 end
if redis.call('XLEN', KEYS[2]) > 0 or redis.call('XLEN', KEYS[3]) > 0 then return 0 end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
return 1
