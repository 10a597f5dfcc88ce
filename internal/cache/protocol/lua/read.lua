-- In front of every script. read runs a command that reads. A key of another type than ours counts as
-- absent: nothing must stop because of it, and the next write replaces it. Every other error ends the
-- script.
local function read(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then
    if string.find(reply.err, 'WRONGTYPE', 1, true) then return false end
    error(reply.err, 0)
  end
  return reply
end

