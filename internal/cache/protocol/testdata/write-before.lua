-- The write script of earlier builds of format 1 (see TestOldAndNewWritersAlternate).

local seq, epoch, log = KEYS[1], KEYS[2], KEYS[3]
local channel, deadline, length, tag_at, condition, id = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[5]), ARGV[6], ARGV[7]
local frames = 9 -- index of the first frame in ARGV
local writes = #KEYS - 3
local delete = string.byte(ARGV[frames], 2) == 2

local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])
-- A write whose client has given up must not take effect after a newer one.
if time[1] * 1000 + math.floor(time[2] / 1000) > deadline then
  return {0, now}
end

-- Versions stay below this limit, because a Lua number is not exact beyond 2^53.
local limit = 9000000000000000
local function valid(n) -- n may be nil or nan
  return n and n >= 0 and n < limit and n == math.floor(n)
end
local version = tonumber(read('GET', seq) or '0')
local history = read('GET', epoch)
local top = (read('XREVRANGE', log, '+', '-', 'COUNT', 1) or {})[1]
local logged, previous = 0, string.rep('\0', 8)
if top then -- this script makes no id with a sequence part
  logged, previous = tonumber(string.match(top[1], '^(%d+)-0$') or ''), string.sub(top[2][2], 1, 8)
end
-- It was "version = valid(version) and version", which keeps an invalid version in the embedded Redis's Lua.
if not valid(version) then version = false end
if not valid(logged) then logged = false end

local existing = redis.call('EXISTS', unpack(KEYS, 4))
local function holds()
  if condition == '' then return true end
  if condition == '*' then return existing > 0 end
  if condition == '!' then return existing == 0 end
  local tag = read('GETRANGE', KEYS[4], tag_at, tag_at + 15)
  for i = 1, #condition, 16 do
    if string.sub(condition, i, i + 15) == tag then return true end
  end
  return false
end

local outcome
if not holds() then
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
  return {1, now, history or '', string.format('%.0f', version or 0), outcome}
end

local change = delete and {'DEL', KEYS[4]} or {'MSET', KEYS[4], ''}
local refusal = denied({{'SET', seq, ''}, {'SET', epoch, ''}, {'DEL', log}, {'XADD', log, '1-0', 'e', ''}, change, {'PUBLISH', channel, ''}})
if refusal then return refusal end

-- Redis checks its memory at the first command of a script that writes. A delete comes first and passes,
-- because it frees memory; for sets the first one is SET or XADD, which is refused before anything changes.
if delete then
  redis.call('DEL', KEYS[4])
end
local function begin_history()
  redis.call('SET', epoch, ARGV[4])
  redis.call('DEL', log) -- XADD refuses an id below the last one
  history, version, previous = ARGV[4], math.max(version or 0, logged or 0), string.rep('\0', 8)
  if version >= limit / 2 then
    version = 0 -- otherwise the new history would soon reach the limit too
  end
end
-- The sequence and the log disagree when one of them was set back or deleted; with an epoch and no entry, both were
-- deleted. Versions would be assigned twice, so the write begins a new history. So does a commit that does not fit
-- below the limit.
if not history or #history ~= 8 or #previous ~= 8 or not top or not version or version ~= logged or version + writes >= limit then
  begin_history()
end

local floor, char = math.floor, string.char
local function bytes8(n)
  local b = {}
  for i = 8, 1, -1 do
    b[i] = char(n % 256)
    n = floor(n / 256)
  end
  return table.concat(b)
end

local last
-- string.format, because the operator .. formats a large version as 1e+14
local function append(call)
  last = version + writes
  return call('XADD', log, 'MINID', '~', string.format('%.0f', math.max(0, last - length)), string.format('%.0f-0', last), 'e', id .. previous .. ARGV[8], 'o', outcome)
end
-- A log refuses this id if it ever had an entry with a higher one, even a deleted entry.
local added = append(redis.pcall)
if type(added) == 'table' and added.err then
  if not string.find(added.err, 'equal or smaller', 1, true) then error(added.err, 0) end
  begin_history()
  append(redis.call)
end
redis.call('SET', seq, string.format('%.0f', last))
if not delete then
  local values, page, stamp = {}, nil, nil
  for i = 1, writes do
    local v = version + i
    if floor(v / 256) ~= page then -- the other bytes change every 256 versions
      page = floor(v / 256)
      stamp = history .. string.sub(bytes8(v), 1, 7)
    end
    values[2 * i - 1] = KEYS[3 + i]
    values[2 * i] = stamp .. char(v % 256) .. id .. ARGV[frames - 1 + i]
  end
  redis.call('MSET', unpack(values))
end
-- Last, so that a reader that receives the message finds the whole commit.
redis.call('PUBLISH', channel, history .. bytes8(last) .. id .. previous .. table.concat(ARGV, '', frames))
return {1, now, history, string.format('%.0f', version), outcome}
