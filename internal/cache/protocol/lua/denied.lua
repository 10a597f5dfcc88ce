-- Prepended to the writer's scripts. denied returns an error reply for the first of the commands that the access
-- list denies to this user, and nil when all are permitted. Scripts check first, because Redis does not roll back a
-- script that fails halfway. The embedded Redis has no access list.
local function denied(commands)
  for _, command in ipairs(redis.acl_check_cmd and commands or {}) do
    if not redis.acl_check_cmd(unpack(command)) then
      return redis.error_reply('NOPERM the access list of Redis does not let this user run ' .. command[1] .. ' on ' .. (command[2] or 'the server'))
    end
  end
end

