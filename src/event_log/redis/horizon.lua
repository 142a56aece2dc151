-- Up to when the history of all channels can be read so that nothing earlier follows: just before the oldest event that
-- has a time and is not shown yet, else now. What comes later gets a later time.
--
-- KEYS: clock, in flight. ARGV: the time that it is not before, and by how much Redis's clock is to be corrected.
-- Returns the clock and that time, in microseconds since 1970.
local time = redis.call('TIME')
local now = math.max(time[1] * 1000000 + time[2] + ARGV[2], tonumber(redis.call('GET', KEYS[1]) or '0'), tonumber(ARGV[1]))
redis.call('SET', KEYS[1], string.format('%.0f', now))
local oldest = redis.call('ZRANGE', KEYS[2], 0, 0, 'WITHSCORES')[2]
return { string.format('%.0f', now), string.format('%.0f', oldest and math.min(now, oldest - 1) or now) }
