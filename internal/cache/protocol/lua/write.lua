-- One atomic commit: a write, or several sets in order. All checks come before the first change, because Redis does not
-- roll back a script that fails. This script bounds the writes per second: the writer prepares as much as it can, and the
-- script calls few commands and creates few strings, because each call costs about a microsecond and Lua hashes each string.
--
-- KEYS: seq, epoch, log, then the value key of each write; a key may occur twice
-- ARGV: channel, deadline (Unix ms of this server's clock), log length in writes, epoch for a new history,
--       offset of the tag in a stored value, condition, write id, the writes as the log has them, then the frame of
--       each write
-- condition: '' none, '*' the key exists, '!' it does not exist, else 16-byte tags, one of which the value must have.
--   A delete or a conditional write is the only write of its call, so several writes always take place together.
--
-- Stores
--   the values: epoch (8), version (8), write id (8), frame
--   a log entry whose id is the last version: write id (8), previous write id (8), the writes; and in a second
--   field the outcome, for a writer that lost the reply (settle.lua)
-- and publishes
--   the message: epoch (8), last version (8), write id (8), previous write id (8), the frames
--
-- Returns {0, server time in us} when the deadline has passed, otherwise
-- {1, server time in us, epoch, last version before, outcome}. Time and version are integers.
-- The outcome is F when the condition failed, N for a delete of an absent key, D for a delete, or for sets one letter
-- for all or one for each: C where the key did not exist before the commit, R where it did

local seq, epoch, log = KEYS[1], KEYS[2], KEYS[3]
local channel, condition, id = ARGV[1], ARGV[6], ARGV[7]
local frames = 9 -- index of the first frame in ARGV
local writes = #KEYS - 3
local delete = string.byte(ARGV[frames], 2) == 2

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
-- A write whose client has given up must not take effect after a newer one.
if now >= (ARGV[2] + 1) * 1000 then
  return {0, now}
end

-- Versions stay below this limit, because a Lua number is not exact beyond 2^53.
local limit = 9000000000000000
local sequence = read('GET', seq) or '0'
local version = tonumber(sequence) -- before the commit
local history = read('GET', epoch)
local top = (read('XREVRANGE', log, '+', '-', 'COUNT', 1) or {})[1]
local previous = top and string.sub(top[2][2], 1, 8)
-- The sequence and the log disagree when one of them was set back or deleted; with an epoch and no entry, both were
-- deleted. Versions would be assigned twice, so the write begins a new history. So does a commit that does not fit
-- below the limit.
local continues = top and top[1] == sequence .. '-0' and version + writes < limit and #previous == 8 and history and #history == 8
if not continues then
  local function valid(n) -- n may be nil or nan
    return n and n >= 0 and n < limit and n == math.floor(n) and n or 0
  end
  -- This script makes no id with a sequence part.
  version = math.max(valid(version), valid(tonumber(top and string.match(top[1], '^(%d+)-0$') or '')))
end

local existing = redis.call('EXISTS', unpack(KEYS, 4))
local function holds()
  if condition == '*' then return existing > 0 end
  if condition == '!' then return existing == 0 end
  local tag = read('GETRANGE', KEYS[4], ARGV[5], ARGV[5] + 15)
  for i = 1, #condition, 16 do
    if string.sub(condition, i, i + 15) == tag then return true end
  end
  return false
end

local outcome
if condition ~= '' and not holds() then
  outcome = 'F'
elseif delete then
  outcome = existing > 0 and 'D' or 'N'
elseif existing == 0 then
  outcome = 'C'
elseif existing == writes then
  outcome = 'R'
else
  local each = {}
  for i = 1, writes do
    each[i] = redis.call('EXISTS', KEYS[3 + i]) > 0 and 'R' or 'C'
  end
  outcome = table.concat(each)
end
if outcome == 'F' or outcome == 'N' then
  return {1, now, history or '', version, outcome}
end

local may = redis.acl_check_cmd
local last, added
repeat
  local begins = not continues
  -- The first change of sets in a history that continues is XADD. If the access list denies it, nothing has changed.
  if begins or delete or may and not (may('MSET', seq, '', KEYS[4], '') and may('PUBLISH', channel, '')) then
    local change = delete and {'DEL', KEYS[4]} or {'MSET', seq, '', KEYS[4], ''}
    local refusal = denied({{'SET', seq, ''}, {'SET', epoch, ''}, {'DEL', log}, {'XADD', log, '1-0', 'e', ''}, change, {'PUBLISH', channel, ''}})
    if refusal then return refusal end
  end
  -- Redis checks its memory at the first command of a script that writes. A delete comes first and passes,
  -- because it frees memory; for sets the first one is SET or XADD, which is refused before anything changes.
  if delete then
    redis.call('DEL', KEYS[4])
  end
  if begins then
    redis.call('SET', epoch, ARGV[4])
    redis.call('DEL', log) -- XADD refuses an id below the last one
    history, previous = ARGV[4], string.rep('\0', 8)
    if version >= limit / 2 then
      version = 0 -- otherwise the new history would soon reach the limit too
    end
  end
  last = version + writes
  -- string.format, because the operator .. formats a large version as 1e+14
  local at, entry = string.format('%.0f-0', last), id .. previous .. ARGV[8]
  -- Redis trims whole nodes of the log, by default of 100 entries, and at most 100 nodes at a time. A node may be configured to
  -- have one entry, so the log is bounded only if fewer than 100 entries are added between two trims.
  if last % 64 < writes then
    local oldest = string.format('%.0f', math.max(0, last - ARGV[3]))
    added = redis.pcall('XADD', log, 'MINID', '~', oldest, at, 'e', entry, 'o', outcome)
  else
    added = redis.pcall('XADD', log, at, 'e', entry, 'o', outcome)
  end
  continues = type(added) == 'string'
  -- A log refuses this id if it ever had an entry with a higher one, even a deleted entry.
  if not continues and (begins or not string.find(added.err, 'equal or smaller', 1, true)) then error(added.err, 0) end
until continues

local char = string.char
local function bytes8(n) -- without a table and a loop: one string is created
  local h = n % 256; n = (n - h) / 256
  local g = n % 256; n = (n - g) / 256
  local f = n % 256; n = (n - f) / 256
  local e = n % 256; n = (n - e) / 256
  local d = n % 256; n = (n - d) / 256
  local c = n % 256; n = (n - c) / 256
  local b = n % 256
  return char((n - b) / 256, b, c, d, e, f, g, h)
end

local head = history .. bytes8(last) .. id
sequence = string.format('%.0f', last)
if delete then
  redis.call('SET', seq, sequence)
elseif writes == 1 then
  redis.call('MSET', seq, sequence, KEYS[4], head .. ARGV[frames])
else
  local values, page, stamp = {seq, sequence}, nil, nil
  for i = 1, writes do
    local v = version + i
    if math.floor(v / 256) ~= page then -- the other bytes change every 256 versions
      page = math.floor(v / 256)
      stamp = history .. string.sub(bytes8(v), 1, 7)
    end
    values[2 * i + 1] = KEYS[3 + i]
    values[2 * i + 2] = stamp .. char(v % 256) .. id .. ARGV[frames - 1 + i]
  end
  redis.call('MSET', unpack(values))
end
-- Last, so that a reader that receives the message finds the whole commit.
redis.call('PUBLISH', channel, head .. previous .. (writes == 1 and ARGV[frames] or table.concat(ARGV, '', frames)))
return {1, now, history, version, outcome}
