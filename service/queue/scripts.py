"""The queue's Lua: whatever must happen together happens in one call.

Entries are never deleted before a worker has had them: the group's lag would become unknown, and
with it what autoscalers watch.
"""

SUBMIT = """
-- KEYS: index, high, low. ARGV: limit; then for each job the number of its stream's key, its field
-- and its body. Answers 1 queued, 0 there already, -1 full. A field whose entry is gone (somebody
-- emptied the stream alone) is no job any more.
local answers = {}
local size = redis.call('HLEN', KEYS[1])
for i = 2, #ARGV, 3 do
  local field = ARGV[i + 1]
  local place = redis.call('HGET', KEYS[1], field)
  local is_there = false
  if place then
    local id = string.sub(place, 3)
    is_there = #redis.call('XRANGE', KEYS[tonumber(string.sub(place, 1, 1))], id, id) > 0
  end
  if is_there then
    answers[#answers + 1] = 0
  elseif not place and size >= tonumber(ARGV[1]) then
    answers[#answers + 1] = -1
  else
    local id = redis.call('XADD', KEYS[tonumber(ARGV[i])], '*', 'job', ARGV[i + 2])
    redis.call('HSET', KEYS[1], field, ARGV[i] .. ' ' .. id)
    if not place then size = size + 1 end
    answers[#answers + 1] = 1
  end
end
return answers
"""

STATE = """
-- KEYS: index, dead, then the streams. ARGV: group, the name that holds jobs handed back.
-- Answers the number of unfinished jobs, then for each stream: ready, running, handed back, dead,
-- milliseconds since its oldest unfinished job was queued.
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local answers = {redis.call('HLEN', KEYS[1])}
for i = 3, #KEYS do
  local pending = redis.pcall('XPENDING', KEYS[i], ARGV[1])
  local delivered, parked = 0, 0
  if not pending.err then
    delivered = pending[1]
    for _, consumer in ipairs(pending[4] or {}) do
      if consumer[1] == ARGV[2] then parked = tonumber(consumer[2]) end
    end
  end
  local age = 0
  local oldest = redis.call('XRANGE', KEYS[i], '-', '+', 'COUNT', 1)[1]
  if oldest then age = math.max(0, now - tonumber(string.match(oldest[1], '^%d+'))) end
  local dead = tonumber(redis.call('HGET', KEYS[2], KEYS[i]) or 0)
  local ready = redis.call('XLEN', KEYS[i]) - delivered
  for _, number in ipairs({math.max(0, ready), delivered - parked, parked, dead, age}) do
    answers[#answers + 1] = number
  end
end
return answers
"""
