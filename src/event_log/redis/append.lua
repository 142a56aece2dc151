-- Gives events of one channel their numbers, once, and keeps them until they are in the history (confirm.lua): readers
-- do not see them before. Gives them their times as well (clock.rs): in microseconds since 1970, each later than all
-- that were given before in any channel.
--
-- KEYS: state, stream, pending, clock, in flight, then one "seen" key per event.
-- ARGV: the generation that the caller knows, the lowest head that the channel can be at, how many seconds an event is
--       remembered, a time that the clock is not before, by how much Redis's clock is to be corrected, the channel, then
--       the id and the CloudEvent (JSON text) of each event.
-- Returns {"ok", head, the time of the first new event, number of each event}, the number negative for an event that had
-- it already, the times of further new ones each a microsecond later; or {"stale"} and writes nothing: the state is
-- missing, belongs to another generation or has lost events that somebody has seen. The caller then looks closer
-- (epoch.rs).
local function last(key)
  local info = redis.pcall('XINFO', 'STREAM', key)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return info[i + 1] end
  end
end

local state = redis.call('HMGET', KEYS[1], 'generation', 'head', 'given', 'seed', 'epoch')
local head, given, seed = tonumber(state[2]), tonumber(state[3]), tonumber(state[4])
if state[1] ~= ARGV[1] or not head or not given or not seed or head < tonumber(ARGV[2]) then return { 'stale' } end
if head > seed and last(KEYS[2]) ~= string.format('%.0f-0', head) then return { 'stale' } end
if given > seed and last(KEYS[3]) ~= string.format('%.0f-0', given) then return { 'stale' } end

local time = redis.call('TIME')
local now = math.max(time[1] * 1000000 + time[2] + ARGV[5], tonumber(redis.call('GET', KEYS[4]) or '0') + 1,
  tonumber(ARGV[4]) + 1)
local answer = { 'ok', head, now }
local first = given
for i = 6, #KEYS do
  -- "<number> <generation>": a number of another generation means nothing in this one.
  local seen = redis.call('GET', KEYS[i])
  local number = seen and string.match(seen, '^(%d+) (.*)$')
  if number and string.sub(seen, #number + 2) == ARGV[1] then
    answer[#answer + 1] = -tonumber(number)
  else
    given = given + 1
    local text = string.format('%.0f', given)
    local id, json = ARGV[2 * i - 5], ARGV[2 * i - 4]
    redis.call('XADD', KEYS[3], text .. '-0', 'e', state[5], 'j', json, 'i', id,
      't', string.format('%.0f', now + given - first - 1))
    redis.call('SET', KEYS[i], text .. ' ' .. ARGV[1], 'EX', ARGV[3])
    answer[#answer + 1] = given
  end
end
if given > first then
  redis.call('HSET', KEYS[1], 'given', string.format('%.0f', given))
  redis.call('SET', KEYS[4], string.format('%.0f', now + given - first - 1))
  -- If it is there already, older ones are on their way.
  redis.call('ZADD', KEYS[5], 'NX', string.format('%.0f', now), ARGV[6])
end
return answer
