-- One atomic step for any number of writes, in order. Checks come first and writes after, because
-- a script that fails is not rolled back.
--
-- KEYS: seq, epoch, log, then one value key a write
-- ARGV: channel, deadline (Unix ms of this server's clock), log length, epoch for a new history,
--       length of the value keys' prefix, offset of the tag in a stored value,
--       then for each write: condition, write id (8 bytes) and frame in one
-- condition: '' none, '*' the key exists, '!' it does not, else 16-byte tags, one of which it has
--
-- An entry of the log is one field: write id (8), previous write id (8), operation (1), key. The
-- message has, for each write that took place: length (4), previous write id (8), stored value.
--
-- Returns {0, server time in us} when the deadline has passed, else
-- {1, server time in us, epoch, version before the first write, outcomes}
-- Each outcome is a letter, and the writes with the first three took the next version: C created, R replaced, D deleted, N not found, F the condition failed

local seq, epoch, log = KEYS[1], KEYS[2], KEYS[3]
local channel, maxlen, prefix, tag_at = ARGV[1], ARGV[3], tonumber(ARGV[5]), tonumber(ARGV[6])

local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
-- A write whose client gave up must not land after a newer one.
if time[1] * 1000 + math.floor(time[2] / 1000) > tonumber(ARGV[2]) then
  return {0, now}
end

local version = tonumber(redis.call('GET', seq) or '0')
local history = redis.call('GET', epoch)
local top = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
local logged, previous = 0, string.rep('\0', 8)
-- Beyond 2^53 a Lua number is not exact; what is no version at all counts as none.
if version and not (version >= 0 and version < 9000000000000000 and version == math.floor(version)) then
  version = nil
end
if top then
  logged, previous = tonumber(string.match(top[1], '^(%d+)-')), string.sub(top[2][2], 1, 8)
end
-- The tag of what each key has: '' for nothing, true where nobody asks which tag.
local tags, others = {}, {}
for i = 4, #KEYS do
  local key = KEYS[i]
  if #ARGV[7 + (i - 4) * 2] >= 16 then
    tags[key] = redis.call('GETRANGE', key, tag_at, tag_at + 15)
  elseif tags[key] == nil then
    tags[key] = true
    others[#others + 1] = key
  end
end
-- Most batches are all new or all known: one command tells.
local known = #others > 0 and redis.call('EXISTS', unpack(others)) or 0
if known < #others then
  for i = 1, #others do
    local key = others[i]
    if tags[key] == true and (known == 0 or redis.call('EXISTS', key) == 0) then
      tags[key] = ''
    end
  end
end

-- Sequence and log disagree when somebody set one of them back or lost it. Versions would be
-- handed out twice, so the write begins a new history.
local broken = not history or #history ~= 8 or version == nil or version ~= logged

local function begin_history()
  redis.call('DEL', log)
  redis.call('SET', epoch, ARGV[4])
  history, version, previous = ARGV[4], math.max(version or 0, logged), string.rep('\0', 8)
  broken = false
end

local floor, char, sub, format = math.floor, string.char, string.sub, string.format

local high_part, high_bytes

local function bytes4(n)
  return char(floor(n / 16777216) % 256, floor(n / 65536) % 256, floor(n / 256) % 256, n % 256)
end

local function bytes8(n)
  local high = floor(n / 4294967296)
  if high ~= high_part then
    high_part, high_bytes = high, bytes4(high)
  end
  return high_bytes .. bytes4(n % 4294967296)
end

local function holds(condition, tag)
  if condition == '' then return true end
  if condition == '*' then return tag ~= '' end
  if condition == '!' then return tag == '' end
  for i = 1, #condition, 16 do
    if sub(condition, i, i + 15) == tag then return true end
  end
  return false
end

local outcomes, before = {}, nil
local values, message = {}, {} -- what is stored under each key in the end, false for nothing
for i = 4, #KEYS do
  local key, condition, framed = KEYS[i], ARGV[7 + (i - 4) * 2], ARGV[8 + (i - 4) * 2]
  local delete = string.byte(framed, 10) == 2
  local tag, outcome = tags[key], nil
  if not holds(condition, tag) then
    outcome = 'F'
  elseif delete and tag == '' then
    outcome = 'N'
  else
    if broken then begin_history() end
    before = before or version
    version = version + 1
    local id = sub(framed, 1, 8)
    local stored = history .. bytes8(version) .. framed
    -- '..' alone would write the version as 1e+14
    redis.call('XADD', log, 'MAXLEN', '~', maxlen, format('%.0f-0', version), 'e', id .. previous .. (delete and 'D' or 'S') .. sub(key, prefix + 1))
    message[#message + 1] = bytes4(#stored + 8) .. previous
    message[#message + 1] = stored
    previous = id
    if delete then
      values[key], tags[key], outcome = false, '', 'D'
    else
      values[key], tags[key] = stored, sub(stored, tag_at + 1, tag_at + 16)
      outcome = tag == '' and 'C' or 'R'
    end
  end
  outcomes[i - 3] = outcome
end
if #message > 0 then
  redis.call('SET', seq, format('%.0f', version))
  local set, del = {}, {}
  for key, value in pairs(values) do
    if value then
      set[#set + 1] = key
      set[#set + 1] = value
    else
      del[#del + 1] = key
    end
  end
  if #set > 0 then redis.call('MSET', unpack(set)) end
  if #del > 0 then redis.call('DEL', unpack(del)) end
  -- Last, because it alone can be refused (by an access list that does not have the channel), and
  -- then the log tells the readers.
  redis.call('PUBLISH', channel, table.concat(message))
end
return {1, now, history or '', format('%.0f', before or version or 0), table.concat(outcomes)}
