-- Sets a value for a user, if that is no more than they may have.
--
-- KEYS: the key, whose keys are (hash: key to user), the user's keys (hash: key to bytes; the empty field: of all).
-- ARGV: the value, the user, how many keys and bytes they may have, what the third key begins with for others.
-- Returns 0; or 1 and how many keys, or 2 and how many bytes there are, and writes nothing.
local key, owners, own = KEYS[1], KEYS[2], KEYS[3]
local value, user, most_keys, most_bytes, others = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local size = #key + #value

local had = redis.call('HGET', own, key)
local keys = math.max(redis.call('HLEN', own) - 1, 0)
local bytes = tonumber(redis.call('HGET', own, '') or 0)
if not had and keys + 1 > most_keys then return {1, keys} end
if bytes - tonumber(had or 0) + size > most_bytes then return {2, bytes} end

local owner = redis.call('HGET', owners, key)
if owner and owner ~= user then
    local was = redis.call('HGET', others .. owner, key)
    redis.call('HDEL', others .. owner, key)
    redis.call('HINCRBY', others .. owner, '', -tonumber(was or 0))
end
redis.call('HINCRBY', own, '', size - tonumber(had or 0))
redis.call('HSET', own, key, size)
redis.call('HSET', owners, key, user)
redis.call('SET', key, value)
return {0, 0}
