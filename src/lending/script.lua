-- Lends tokens of one meter to a node, by the clock of this server.
--
-- A meter is the moment at which it is full again, in microseconds, and the interval that it was reckoned by:
-- "1764345600000000 1000000". One that is not there is full. All other times are nanoseconds.
local interval, capacity = tonumber(ARGV[1]), tonumber(ARGV[2])
local want, in_hand, owed, back = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
local missing = 0
local full_at, reckoned_by = string.match(redis.call('GET', KEYS[1]) or '', '^(%d+) (%d+)$')
if full_at then
    missing = math.max(0, (full_at - now) * 1000)
    -- Under another limit as many requests are missing as were.
    if reckoned_by ~= ARGV[1] then
        missing = missing * interval / reckoned_by
    end
end
missing = math.max(0, math.min(capacity, missing + (owed - back) * interval))
-- What the node alone is missing, whatever was forgotten here.
missing = math.max(missing, math.min(capacity, tonumber(ARGV[7])))
local there = math.floor((capacity - missing) / interval)
local tokens = 0
if want > 0 then
    tokens = math.min(there, math.max(want, math.floor(there / 256) - in_hand))
end
missing = missing + tokens * interval
if missing > 0 then
    -- A number that Lua writes by itself loses its last digits.
    local full = string.format('%.0f %s', now + math.ceil(missing / 1000), ARGV[1])
    redis.call('SET', KEYS[1], full, 'PX', string.format('%.0f', math.ceil(missing / 1000000)))
elseif full_at then
    redis.call('DEL', KEYS[1])
end
return { tokens, missing }
