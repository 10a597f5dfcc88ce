-- Fails for the reason for which a write would fail now. Changes nothing.
--
-- KEYS: seq, epoch, log, a key that never has a value
-- ARGV: channel

local seq, epoch, log, nothing = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local refusal = denied({
  {'TIME'}, {'GET', epoch}, {'XREVRANGE', log, '+', '-'}, {'EXISTS', nothing}, {'GETRANGE', nothing, 0, 1},
  {'SET', seq, ''}, {'SET', epoch, ''}, {'DEL', log}, {'XADD', log, '1-0', 'e', ''}, {'MSET', nothing, ''},
  {'PUBLISH', ARGV[1], ''},
})
if refusal then return refusal end
-- With XX, SET changes nothing, and Redis still checks its role, memory, disk and Redis replicas.
redis.call('SET', nothing, '', 'XX')
return 1
