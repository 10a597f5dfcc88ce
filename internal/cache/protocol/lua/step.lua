-- The log step: one atomic read of a shard for a replica. It returns the log after the watermark, the current values of
-- its keys, the current values of missed keys, and the head. If log and values were read by two scripts, a value could be
-- newer than the log that led to it.
--
-- The head is the end of the log, not the sequence number, which only write.lua uses: after a client has set that back, no
-- value has changed yet, and the next write begins a new history.
--
-- KEYS: epoch, log
-- ARGV: version of the watermark, version of the newest write whose value the replica may hold,
--       largest number of writes, largest size of log entries and values in bytes, prefix of the value keys,
--       write id of the entry after the watermark of which the last log step returned a part, number of the
--       writes in that part,
--       then the missed keys
--
-- Returns {epoch, version, write id of the head,
--   write ids of the entries at the watermark and at the newest write that the replica may hold,
--   {version, entry as write.lua encodes it, ...}, {key, value or false, ...}, {value or false or 0, ...},
--   write id of the entry of which a part is returned, number of the writes returned so far,
--   server time in us}
-- An absent epoch or write id is an empty string. The list of entries ends when a bound is reached. An entry
-- whose values do not fit is returned in parts: the values first, and the entry with the last of them. For a missed key,
-- 0 means that the bound was reached before it; the value of the first missed key is always read. The time is
-- empty where TIME is refused: by an access list of an older version, or by the embedded Redis in read-only scripts.
--
-- Clients with write access can append entries that write.lua did not make. They are recognised by their ids, which have
-- a sequence part, or by their contents. The first one ends the list, as an empty string: the replica has to take a
-- snapshot, and the next write begins a new history. Entries with the same millisecond part count as one version: a log
-- step begins after all of them, and the head has the write id of the last. So a snapshot that is later than such entries
-- gets the replica past them.

local epoch, log = KEYS[1], KEYS[2]
local watermark, most, room, prefix = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local begun, done = ARGV[6], tonumber(ARGV[7])
local byte, sub = string.byte, string.sub
local last_of = '-18446744073709551615' -- after every other id of the same millisecond part

local version, head = '0', ''
local top = (read('XREVRANGE', log, '+', '-', 'COUNT', 1) or {})[1]
if top then
  version, head = string.match(top[1], '^%d+'), sub(top[2][2], 1, 8)
end

local function id_at(version)
  local entry = (read('XREVRANGE', log, version .. last_of, version .. '-0', 'COUNT', 1) or {})[1]
  return entry and sub(entry[2][2], 1, 8) or ''
end

local function get(key)
  local value = read('GET', prefix .. key)
  room = room - (value and #value or 0)
  return value
end

local values, seen = {}, {}
-- take reads the values of the keys in a log entry: write id, previous write id, then operation (1), length of
-- the key (2) and key of each write. It returns false for an entry that write.lua did not make; otherwise the number
-- of writes whose values did not fit, and the number of those whose values have been read.
local function take(id, packed)
  local size, at = #packed, 17
  if sub(id, -2) ~= '-0' or size < at then return false end
  local skip, read_so_far, left = 0, 0, 0
  if done > 0 and sub(packed, 1, 8) == begun then skip = done end
  done = 0 -- only the first entry can be the one that was begun
  while at <= size do
    local op, high, low = byte(packed, at, at + 2)
    local first = at + 3
    if not low or op < 1 or op > 2 then return false end
    at = first + high * 256 + low
    if at > size + 1 then return false end
    if skip > 0 then
      skip, read_so_far = skip - 1, read_so_far + 1
    elseif left > 0 or room <= 0 and #values > 0 then
      left = left + 1
    else
      local key = sub(packed, first, at - 1)
      if not seen[key] then
        seen[key] = true
        values[#values + 1] = key
        values[#values + 1] = get(key)
      end
      most, read_so_far = most - 1, read_so_far + 1
    end
  end
  room = room - size
  return left, read_so_far
end

local entries, from, pagesize, full = {}, watermark .. last_of, 16, false
local part, part_writes = '', 0
repeat
  local page = read('XRANGE', log, from, '+', 'COUNT', pagesize) or {}
  for _, entry in ipairs(page) do
    local id, packed = entry[1], entry[2][2]
    local at = string.match(id, '^%d+')
    from = '(' .. id
    if not full and at ~= watermark then
      local left, writes = take(id, packed)
      if left and left > 0 then
        part, part_writes = sub(packed, 1, 8), writes
      else
        entries[#entries + 1] = at
        entries[#entries + 1] = left and packed or ''
      end
      full = left ~= 0 or most <= 0 or room <= 0
    end
  end
until full or #page < pagesize

local missed = {}
for i = 8, #ARGV do
  local value = 0
  if i == 8 or room > 0 then
    value = get(ARGV[i])
  end
  missed[#missed + 1] = value
end

local time = redis.pcall('TIME')
local now = time.err and '' or string.format('%.0f', time[1] * 1000000 + time[2])

return {read('GET', epoch) or '', version, head, id_at(watermark), id_at(ARGV[2]), entries, values, missed, part, part_writes, now}
