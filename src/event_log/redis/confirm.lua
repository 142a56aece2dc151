-- Shows events to the readers of a channel: these are in the history now, under these very numbers.
--
-- KEYS: state, stream, pending, in flight. ARGV: the generation that the caller knows, the stream's length, the number of
-- the first event, the channel, then the id of each.
-- Returns the head, or false and writes nothing: another generation has begun, a number before these is not shown yet,
-- or one of them belongs to another event.
local state = redis.call('HMGET', KEYS[1], 'generation', 'head')
local head, first = tonumber(state[2]), tonumber(ARGV[3])
if state[1] ~= ARGV[1] or not head or first > head + 1 then return false end
local upto = first + #ARGV - 5
if upto <= head then return head end

local from = string.format('%.0f-0', head + 1)
local entries = redis.call('XRANGE', KEYS[3], from, string.format('%.0f-0', upto))
if #entries ~= upto - head then return false end
for i, entry in ipairs(entries) do
  if entry[2][6] ~= ARGV[head + i - first + 5] then return false end
end
for _, entry in ipairs(entries) do
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], entry[1], 'e', entry[2][2], 'j', entry[2][4], 't', entry[2][8] or '')
end
redis.call('XTRIM', KEYS[3], 'MINID', string.format('%.0f-0', upto + 1))
redis.call('HSET', KEYS[1], 'head', string.format('%.0f', upto))
local oldest = redis.call('XRANGE', KEYS[3], '-', '+', 'COUNT', 1)[1]
if oldest and oldest[2][8] then
  redis.call('ZADD', KEYS[4], oldest[2][8], ARGV[4])
else
  redis.call('ZREM', KEYS[4], ARGV[4])
end
return upto
