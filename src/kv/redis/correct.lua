-- Corrects what is counted of some keys of a user, after somebody who does not count has changed or removed them.
--
-- KEYS: whose keys are, the user's keys (hash: key to bytes; the empty field: of all), and the keys. ARGV: the user.
-- It only adds differences to the sum, so whatever is set or removed between two pieces stays counted.
local owners, own, user = KEYS[1], KEYS[2], ARGV[1]
local keys = {}
for i = 3, #KEYS do keys[#keys + 1] = KEYS[i] end
if #keys == 0 then return 0 end
local sizes = redis.call('HMGET', own, unpack(keys))
local users = redis.call('HMGET', owners, unpack(keys))
local more = 0
for i, key in ipairs(keys) do
    local was = sizes[i]
    if was then
        -- An error is something else than a text, which is not ours any more; 0 is nothing, or an empty text.
        local length = redis.pcall('STRLEN', key)
        local there = type(length) == 'number' and (length > 0 or redis.call('EXISTS', key) == 1)
        if there and users[i] == user then
            local now = #key + length
            if now ~= tonumber(was) then
                redis.call('HSET', own, key, now)
                more = more + now - tonumber(was)
            end
        else
            redis.call('HDEL', own, key)
            if users[i] == user then redis.call('HDEL', owners, key) end
            more = more - tonumber(was)
        end
    end
end
if more ~= 0 then redis.call('HINCRBY', own, '', more) end
return #keys
