-- Finds out what became of a commit whose reply was lost. The log contains the write id of a commit that took place. It
-- did not take place when the log is complete back to the entry that was its end before the commit was sent, and does
-- not contain the write id.
--
-- KEYS: epoch, log
-- ARGV: write id, deadline of the commit (Unix ms of this server's clock), number of its writes, version and
--       write id of the log's last entry before the commit was sent; '0' and an empty string when the log was empty
--
-- Returns the reply of write.lua for a commit that took place, otherwise
--   {0, server time in us} when it has not taken place and never will
--   {2, server time in us} when it may still take place
--   {3, server time in us} when the log does not show what happened and never will

local epoch, log = KEYS[1], KEYS[2]
local id, deadline, writes, version, before = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4], ARGV[5]
local sub = string.sub

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]

local from, oldest, left, pagesize = '+', nil, 20000, 500
local page
repeat
  page = read('XREVRANGE', log, from, version .. '-0', 'COUNT', pagesize) or {}
  for _, entry in ipairs(page) do
    if sub(entry[2][2], 1, 8) == id then
      return {1, now, read('GET', epoch) or '', tonumber(string.match(entry[1], '^%d+')) - writes, entry[2][4]}
    end
    oldest = entry
    from = '(' .. entry[1]
  end
  left = left - #page
until #page < pagesize or left <= 0

local complete -- the log has every commit since then
if before ~= '' then
  complete = oldest and oldest[1] == version .. '-0' and sub(oldest[2][2], 1, 8) == before
else -- the first entry of a history has no previous write id
  complete = not oldest or #page < pagesize and sub(oldest[2][2], 9, 16) == string.rep('\0', 8)
end
if time[1] * 1000 + math.floor(time[2] / 1000) <= deadline then
  return {2, now}
end
return {complete and 0 or 3, now}
