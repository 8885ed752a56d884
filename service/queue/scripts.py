"""The queue's Lua: whatever must happen together happens in one call.

Entries are never deleted before a worker has had them: the group's lag would become unknown, and
with it what autoscalers watch.
"""

_PRESENT = """
-- Whether the job of a place in the index is still in its stream: somebody may have emptied the
-- stream alone, and then its field is no job any more.
local function is_there(place)
  local id = string.sub(place, 3)
  return #redis.call('XRANGE', KEYS[tonumber(string.sub(place, 1, 1))], id, id) > 0
end
"""

SUBMIT = (
    _PRESENT
    + """
-- KEYS: index, high, low. ARGV: the limits of high and low; then for each job the number of its
-- stream's key, its field and its body. Answers 1 queued, 0 there already, -1 full.
local answers = {}
local size = redis.call('HLEN', KEYS[1])
for i = 3, #ARGV, 3 do
  local field = ARGV[i + 1]
  local place = redis.call('HGET', KEYS[1], field)
  if place and is_there(place) then
    answers[#answers + 1] = 0
  elseif not place and size >= tonumber(ARGV[tonumber(ARGV[i]) - 1]) then
    answers[#answers + 1] = -1
  else
    local id = redis.call('XADD', KEYS[tonumber(ARGV[i])], '*', 'job', ARGV[i + 2], 'field', field)
    redis.call('HSET', KEYS[1], field, ARGV[i] .. ' ' .. id)
    if not place then size = size + 1 end
    answers[#answers + 1] = 1
  end
end
return answers
"""
)

HELD = (
    _PRESENT
    + """
-- KEYS: as SUBMIT. ARGV: fields of jobs. Answers 1 for each that is queued or running, else 0.
local answers = {}
for i, place in ipairs(redis.call('HMGET', KEYS[1], unpack(ARGV))) do
  answers[i] = (place and is_there(place)) and 1 or 0
end
return answers
"""
)

STATE = """
-- KEYS: index, facts, then the streams. ARGV: group, the name that holds jobs handed back.
-- Answers the number of unfinished jobs, then for each stream: ready, running, handed back, dead,
-- milliseconds since its oldest unfinished job was queued. Makes a group that is missing: without
-- one no autoscaler could tell that jobs wait for the first worker.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local answers = {redis.call('HLEN', KEYS[1])}
for i = 3, #KEYS do
  local pending = redis.pcall('XPENDING', KEYS[i], ARGV[1])
  local delivered, parked = 0, 0
  if pending.err then
    redis.pcall('XGROUP', 'CREATE', KEYS[i], ARGV[1], '0', 'MKSTREAM')
  else
    delivered = pending[1]
    for _, consumer in ipairs(pending[4] or {}) do
      if consumer[1] == ARGV[2] then parked = tonumber(consumer[2]) end
    end
  end
  local kept = redis.call('HGET', KEYS[2], 'kept ' .. KEYS[i])
  local finished = 0
  if kept then finished = #redis.call('XRANGE', KEYS[i], kept, kept) end
  local age = 0
  for _, entry in ipairs(redis.call('XRANGE', KEYS[i], '-', '+', 'COUNT', 2)) do
    if entry[1] ~= kept and age == 0 then
      age = math.max(1, now - tonumber(string.match(entry[1], '^%d+')))
    end
  end
  local dead = tonumber(redis.call('HGET', KEYS[2], 'dead ' .. KEYS[i]) or 0)
  local ready = redis.call('XLEN', KEYS[i]) - delivered - finished
  for _, number in ipairs({math.max(0, ready), delivered - parked, parked, dead, age}) do
    answers[#answers + 1] = number
  end
end
return answers
"""

RECLAIM = """
-- KEYS: stream. ARGV: group, consumer, idle milliseconds, most entries.
-- Answers {entry, fields, deliveries} of jobs whose worker gave no sign for that long.
local found, cursor, left = {}, '0-0', tonumber(ARGV[4])
repeat
  local part = redis.call('XAUTOCLAIM', KEYS[1], ARGV[1], ARGV[2], ARGV[3], cursor, 'COUNT', left)
  cursor = part[1]
  for _, entry in ipairs(part[2]) do
    local pending = redis.call('XPENDING', KEYS[1], ARGV[1], entry[1], entry[1], 1)
    found[#found + 1] = {entry[1], entry[2], pending[1][4]}
  end
  left = tonumber(ARGV[4]) - #found
until cursor == '0-0' or left <= 0
return found
"""

RENEW = """
-- KEYS: stream. ARGV: group, consumer, entries. Only those that are still this consumer's: whoever
-- reclaimed one meanwhile keeps it.
for i = 3, #ARGV do
  if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2]) > 0 then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
  end
end
"""

FINISH = """
-- KEYS: stream, index, facts. ARGV: group, channel, announcement or '', then for each job its
-- entry, its field and 1 if it was given up. An entry that is not pending here is somebody else's
-- to delete.
-- While the last entry delivered is deleted the server cannot tell the lag: it stays, acknowledged
-- and noted, until another one has been delivered.
local last = ''
local groups = redis.pcall('XINFO', 'GROUPS', KEYS[1])
if not groups.err then
  for _, facts in ipairs(groups) do
    if facts[2] == ARGV[1] then last = facts[8] end
  end
end
local kept = redis.call('HGET', KEYS[3], 'kept ' .. KEYS[1])
if kept and kept ~= last then
  redis.call('XDEL', KEYS[1], kept)
  redis.call('HDEL', KEYS[3], 'kept ' .. KEYS[1])
end
for i = 4, #ARGV, 3 do
  if redis.call('XACK', KEYS[1], ARGV[1], ARGV[i]) == 1 then
    if ARGV[i] == last then
      redis.call('HSET', KEYS[3], 'kept ' .. KEYS[1], last)
    else
      redis.call('XDEL', KEYS[1], ARGV[i])
    end
    local place = redis.call('HGET', KEYS[2], ARGV[i + 1])
    if place and string.sub(place, 3) == ARGV[i] then redis.call('HDEL', KEYS[2], ARGV[i + 1]) end
    if ARGV[i + 2] == '1' then redis.call('HINCRBY', KEYS[3], 'dead ' .. KEYS[1], 1) end
  end
end
if ARGV[3] ~= '' then redis.call('PUBLISH', ARGV[2], ARGV[3]) end
"""

HAND_BACK = """
-- KEYS: stream. ARGV: group, consumer, the name that holds jobs handed back, idle milliseconds,
-- then entries and their deliveries before this one. Only those that are still this consumer's.
for i = 5, #ARGV, 2 do
  if #redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1, ARGV[2]) > 0 then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[3], 0, ARGV[i],
      'IDLE', ARGV[4], 'RETRYCOUNT', ARGV[i + 1], 'JUSTID')
  end
end
"""

LEAVE = """
-- KEYS: streams. ARGV: group, consumer, the name that holds jobs handed back, idle milliseconds
-- that make an entry claimable, idle milliseconds after which a consumer without jobs is forgotten,
-- 1 if these deliveries do not count.
for _, stream in ipairs(KEYS) do
  for _, entry in ipairs(redis.call('XPENDING', stream, ARGV[1], '-', '+', 10000, ARGV[2])) do
    redis.call('XCLAIM', stream, ARGV[1], ARGV[3], 0, entry[1],
      'IDLE', ARGV[4], 'RETRYCOUNT', entry[4] - tonumber(ARGV[6]), 'JUSTID')
  end
  for _, facts in ipairs(redis.call('XINFO', 'CONSUMERS', stream, ARGV[1])) do
    local name, pending, idle = facts[2], tonumber(facts[4]), tonumber(facts[6])
    if pending == 0 and (name == ARGV[2] or idle > tonumber(ARGV[5])) then
      redis.call('XGROUP', 'DELCONSUMER', stream, ARGV[1], name)
    end
  end
end
"""
