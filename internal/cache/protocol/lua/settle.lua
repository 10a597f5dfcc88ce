-- What became of a commit whose reply was lost. The log has it under its write id, or it did not take
-- place: that is certain when the log is seen back to what it had before the commit was sent.
--
-- KEYS: epoch, log
-- ARGV: write id, deadline of the commit (Unix ms of this server's clock), number of its writes, version
--       and write id of an entry that was the end of the log before the commit was sent; '0' and an
--       empty string when the log had none
--
-- Returns what write.lua does for a commit that took place; else {0, server time in us} when it has not
-- taken place and will not, {2, server time in us} when it may take place yet, and {3, server time in us}
-- when the log does not tell and never will

local epoch, log = KEYS[1], KEYS[2]
local id, deadline, writes, version, before = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]
local sub = string.sub

local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000000 + time[2])

local from, oldest, left, pagesize = '+', nil, 20000, 500
local page
repeat
  page = read('XREVRANGE', log, from, version .. '-0', 'COUNT', pagesize) or {}
  for _, entry in ipairs(page) do
    if sub(entry[2][2], 1, 8) == id then
      return {1, now, read('GET', epoch) or '', string.format('%.0f', tonumber(string.match(entry[1], '^%d+')) - writes), entry[2][4]}
    end
    oldest = entry
    from = '(' .. entry[1]
  end
  left = left - #page
until #page < pagesize or left <= 0

local seen -- every commit since
if before ~= '' then
  seen = oldest and oldest[1] == version .. '-0' and sub(oldest[2][2], 1, 8) == before
else -- the first entry of a history has none before it
  seen = not oldest or #page < pagesize and sub(oldest[2][2], 9, 16) == string.rep('\0', 8)
end
if time[1] * 1000 + math.floor(time[2] / 1000) <= deadline then
  return {2, now}
end
return {seen and 0 or 3, now}
