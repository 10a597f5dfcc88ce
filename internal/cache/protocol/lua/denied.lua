-- In front of the scripts for the writer. denied returns an error reply for the first of the commands that
-- the access list does not let the user of this connection run, nil when it may run all. A script that is
-- refused half-way is not rolled back. The embedded Redis has no access list.
local function denied(commands)
  for _, command in ipairs(redis.acl_check_cmd and commands or {}) do
    if not redis.acl_check_cmd(unpack(command)) then
      return redis.error_reply('NOPERM the access list of Redis does not let this user run ' .. command[1] .. ' on ' .. (command[2] or 'the server'))
    end
  end
end

