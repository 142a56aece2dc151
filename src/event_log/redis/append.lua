-- Appends events to one channel's stream; each gets the next number, once.
--
-- KEYS: state, stream, then one "seen" key per event.
-- ARGV: the epoch that the caller knows, the lowest head that it can be at, the stream's length, how many seconds an
--       event is remembered, then one CloudEvent (JSON text) per event.
-- Returns {"ok", number of each event}, or {"stale"} and writes nothing: the state is missing, belongs to another
-- epoch or has lost events that somebody has seen. The caller then looks closer (epoch.rs).
local state = redis.call('HMGET', KEYS[1], 'epoch', 'head', 'base')
local head, base = tonumber(state[2]), tonumber(state[3])
if state[1] ~= ARGV[1] or not head or not base or head < tonumber(ARGV[2]) then return { 'stale' } end
if head > base then
  local info, last = redis.pcall('XINFO', 'STREAM', KEYS[2]), nil
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = info[i + 1] end
  end
  if last ~= string.format('%.0f-0', head) then return { 'stale' } end
end

local answer = { 'ok' }
local first = head
for i = 3, #KEYS do
  -- "<number> <epoch>": a number of another epoch means nothing in this one.
  local seen = redis.call('GET', KEYS[i])
  local number = seen and string.match(seen, '^(%d+) (.*)$')
  if number and string.sub(seen, #number + 2) == ARGV[1] then
    answer[#answer + 1] = tonumber(number)
  else
    head = head + 1
    local text = string.format('%.0f', head)
    redis.call('XADD', KEYS[2], 'MAXLEN', '~', ARGV[3], text .. '-0', 'e', ARGV[1], 'j', ARGV[i + 2])
    redis.call('SET', KEYS[i], text .. ' ' .. ARGV[1], 'EX', ARGV[4])
    answer[#answer + 1] = head
  end
end
if head > first then redis.call('HSET', KEYS[1], 'head', string.format('%.0f', head)) end
return answer
