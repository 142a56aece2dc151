-- Sets a value for a user, if that is no more than they may have.
--
-- KEYS: the key, whose keys are (hash: key to user), the user's keys (hash: key to bytes; the empty field: of all).
-- ARGV: the value, the user, how many keys and bytes they may have, what the third key begins with for others.
-- Returns 0; or 1 and how many keys, or 2 and how many bytes there are, and writes nothing.
local key, owners, own = KEYS[1], KEYS[2], KEYS[3]
local value, user, most_keys, most_bytes, others = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local size = #key + #value

local function refusal()
    local had = redis.call('HGET', own, key)
    local keys = math.max(redis.call('HLEN', own) - 1, 0)
    local bytes = tonumber(redis.call('HGET', own, '') or 0)
    if not had and keys + 1 > most_keys then return {1, keys} end
    if bytes - tonumber(had or 0) + size > most_bytes then return {2, bytes} end
end

-- KernelCI's own server changes and removes keys without a word: what is there is counted, but not all the time.
local function count()
    local bytes = 0
    for _, field in ipairs(redis.call('HKEYS', own)) do
        if field ~= '' then
            local is_there = redis.call('EXISTS', field) == 1 and redis.call('TYPE', field).ok == 'string'
            if is_there and redis.call('HGET', owners, field) == user then
                local now = #field + redis.call('STRLEN', field)
                redis.call('HSET', own, field, now)
                bytes = bytes + now
            else
                redis.call('HDEL', own, field)
                if redis.call('HGET', owners, field) == user then redis.call('HDEL', owners, field) end
            end
        end
    end
    redis.call('HSET', own, '', bytes)
end

local refused = refusal()
if refused and redis.call('SET', own .. ':counted', 1, 'NX', 'EX', 10) then
    count()
    refused = refusal()
end
if refused then return refused end

local owner = redis.call('HGET', owners, key)
if owner and owner ~= user then
    local was = redis.call('HGET', others .. owner, key)
    redis.call('HDEL', others .. owner, key)
    redis.call('HINCRBY', others .. owner, '', -tonumber(was or 0))
end
redis.call('HINCRBY', own, '', size - tonumber(redis.call('HGET', own, key) or 0))
redis.call('HSET', own, key, size)
redis.call('HSET', owners, key, user)
redis.call('SET', key, value)
return {0, 0}
