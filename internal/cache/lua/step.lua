-- One instant of a shard, for a replica: what the log has after its watermark, the current values
-- of those keys, the current values of keys it asks for, and the head. Read in two scripts, a
-- value could be newer than the log that led to it.
--
-- The head is the end of the log. The sequence number is for the write script alone: when somebody
-- sets it back, nothing has changed yet, and the next write begins a new history.
--
-- KEYS: epoch, log
-- ARGV: version of the watermark, version of the newest write that the replica may hold a trace of,
--       most writes, most bytes of values, prefix of the value keys,
--       then the keys that readers miss
--
-- Returns {epoch, version, write id of the head, write ids at the watermark and at the newest trace,
--   {version, entry as write.lua has it, ...}, {key, value or false, ...}, {value or false or 0, ...}}
-- An empty string stands for an epoch or write id that is not there. After the entry that reaches
-- one of the bounds no other follows. Of the missed keys, 0 says that its value went over the bound.

local epoch, log = KEYS[1], KEYS[2]
local watermark, most, room, prefix = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local byte, sub = string.byte, string.sub

local version, head = '0', ''
local top = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
if top then
  version, head = string.match(top[1], '^%d+'), sub(top[2][2], 1, 8)
end

local function id_at(version)
  local entry = redis.call('XRANGE', log, version .. '-0', version .. '-0', 'COUNT', 1)[1]
  return entry and sub(entry[2][2], 1, 8) or ''
end

-- A key of another type than ours must not stop everything: it counts as absent.
local function get(key)
  local value = redis.pcall('GET', prefix .. key)
  value = type(value) == 'string' and value
  room = room - (value and #value or 0)
  return value
end

local entries, values, seen = {}, {}, {}
local function take(writes) -- as the log has them: operation (1), length of the key (2), key
  local at = 17
  while at + 2 <= #writes do -- what is no entry of ours is for the replica to tell
    local first = at + 3
    at = first + byte(writes, at + 1) * 256 + byte(writes, at + 2)
    local key = sub(writes, first, at - 1)
    if not seen[key] then
      seen[key] = true
      values[#values + 1] = key
      values[#values + 1] = get(key)
    end
    most = most - 1
  end
end

local from, pagesize = watermark, 16 -- commits, of which eight may reach the bound
repeat
  local page = redis.call('XRANGE', log, '(' .. from .. '-0', '+', 'COUNT', pagesize)
  for _, entry in ipairs(page) do
    if most <= 0 or room <= 0 then break end
    take(entry[2][2])
    from = string.match(entry[1], '^%d+')
    entries[#entries + 1] = from
    entries[#entries + 1] = entry[2][2]
  end
until #page < pagesize or most <= 0 or room <= 0

local missed = {}
for i = 6, #ARGV do
  local value = get(ARGV[i])
  if room < 0 and i > 6 then
    value = 0
  end
  missed[#missed + 1] = value
end

return {redis.call('GET', epoch) or '', version, head, id_at(watermark), id_at(ARGV[2]), entries, values, missed}
