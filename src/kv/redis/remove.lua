-- Removes keys: whoever they are of, or only those that are still this user's.
--
-- KEYS: whose keys are, and the keys. ARGV: what the names of users' hashes begin with, the user or nothing.
local owners, users, user = KEYS[1], ARGV[1], ARGV[2]
for i = 2, #KEYS do
    local key = KEYS[i]
    local owner = redis.call('HGET', owners, key)
    if not user or owner == user then redis.call('DEL', key) end
    if owner and (not user or owner == user) then
        local was = redis.call('HGET', users .. owner, key)
        redis.call('HDEL', users .. owner, key)
        redis.call('HINCRBY', users .. owner, '', -tonumber(was or 0))
        redis.call('HDEL', owners, key)
    end
end
return #KEYS - 1
