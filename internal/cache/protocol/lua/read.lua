-- Prepended to every script that reads. read runs a read command. A key of an unexpected type counts as absent: it must
-- not stop replicas or writers, and the next write replaces it. Every other error ends the script.
local function read(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then
    if string.find(reply.err, 'WRONGTYPE', 1, true) then return false end
    error(reply.err, 0)
  end
  return reply
end

