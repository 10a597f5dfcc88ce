-- Fails if a write would fail now, and changes nothing. Returns the stamp and the format of the newest value, or '' if
-- there is none: a build with an older format must not write.
--
-- KEYS: seq, epoch, log, a key that never has a value
-- ARGV: channel

local seq, epoch, log, nothing = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local refusal = denied({
  {'TIME'}, {'GET', epoch}, {'XREVRANGE', log, '+', '-'}, {'EXISTS', nothing}, {'GETRANGE', nothing, 0, 1},
  {'SET', seq, ''}, {'SET', epoch, ''}, {'DEL', log}, {'XADD', log, '1-0', 'e', ''}, {'MSET', seq, '', nothing, ''},
  {'PUBLISH', ARGV[1], ''},
})
if refusal then return refusal end
-- With XX, SET changes nothing, and Redis still checks its role, memory, disk and Redis replicas.
redis.call('SET', nothing, '', 'XX')

for _, entry in ipairs(redis.call('XREVRANGE', log, '+', '-', 'COUNT', 16)) do
  local packed = tostring(entry[2][2])
  local high, low = string.byte(packed, 18, 19)
  if low then
    local stored = redis.pcall('GETRANGE', nothing .. string.sub(packed, 20, 19 + high * 256 + low), 0, 24)
    if type(stored) == 'string' and stored ~= '' then return stored end
  end
end
return ''
