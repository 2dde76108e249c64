-- SPDX-License-Identifier: Apache-2.0
-- What a node's functions of a job look like now: a picture for people, nothing hangs on it.
-- ARGV node text(JSON) ttl_ms -> OK | NOJOB
local function tree_put(k, a)
  if redis.call('EXISTS', k[1]) == 0 then return {'NOJOB'} end
  local key = prefix(k[1]) .. 'tree'
  redis.call('HSET', key, a[1], a[2])
  redis.call('PEXPIRE', key, a[3])
  return {'OK'}
end

redis.register_function('trib_tree_put', tree_put)
