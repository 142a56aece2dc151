-- Shows events to the readers of a channel: these are in the history now, under these very numbers.
--
-- KEYS: state, stream, pending. ARGV: the generation that the caller knows, the stream's length, the number of the first
-- event, then the id of each.
-- Returns the head, or false and writes nothing: another generation has begun, a number before these is not shown yet,
-- or one of them belongs to another event.
local state = redis.call('HMGET', KEYS[1], 'generation', 'head')
local head, first = tonumber(state[2]), tonumber(ARGV[3])
if state[1] ~= ARGV[1] or not head or first > head + 1 then return false end
local upto = first + #ARGV - 4
if upto <= head then return head end

local from = string.format('%.0f-0', head + 1)
local entries = redis.call('XRANGE', KEYS[3], from, string.format('%.0f-0', upto))
if #entries ~= upto - head then return false end
for i, entry in ipairs(entries) do
  if entry[2][6] ~= ARGV[head + i - first + 4] then return false end
end
for _, entry in ipairs(entries) do
  redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[2], entry[1], 'e', entry[2][2], 'j', entry[2][4])
end
redis.call('XTRIM', KEYS[3], 'MINID', string.format('%.0f-0', upto + 1))
redis.call('HSET', KEYS[1], 'head', string.format('%.0f', upto))
return upto
