-- SPDX-License-Identifier: Apache-2.0
do     -- a chunk of Lua has room for 200 local names: these are of this file alone
-- KEYS trib:key:ticket ; ARGV candidate (64 hex) -> the cluster's ticket key
local function cluster_init(k, a)
  redis.call('SETNX', k[1], a[1])
  return redis.call('GET', k[1])
end

-- KEYS lease fence ; ARGV who ttl_ms config_epoch [url of its API] -> {epoch, 1 if newly taken}; {0,0,holder,ms left,
-- its url or ''} if another's
-- config_epoch: Sentinel's. What a promoted replica never heard of was handed out under a lower one: so no epoch
-- is handed out twice, and a lease from before a fail-over is continued under a new one.
local function lease_take(k, a)
  local cur, base = redis.call('GET', k[1]), tonumber(a[3] or '0') * 1000000000
  if cur then
    local who, ep = string.match(cur, '^(.*)|(%d+)$')
    if who ~= a[1] then
      local at, url = string.match(redis.call('GET', k[1] .. ':url') or '', '^([^|]*)|(.*)$')
      return {0, 0, who, redis.call('PTTL', k[1]), at == who and url or ''}
    end
  end
  if (a[4] or '') ~= '' then redis.call('SET', k[1] .. ':url', a[1] .. '|' .. a[4], 'PX', a[2]) end
  if cur then
    local ep = string.match(cur, '|(%d+)$')
    if tonumber(ep) > base then redis.call('PEXPIRE', k[1], a[2]); return {tonumber(ep), 0} end
  end
  local ep = redis.call('INCR', k[2])
  if ep <= base then ep = base + 1; redis.call('SET', k[2], string.format('%.0f', ep)) end
  redis.call('SET', k[1], a[1] .. '|' .. string.format('%.0f', ep), 'PX', a[2])
  return {ep, 1}
end
-- KEYS lease ; ARGV who
local function lease_drop(k, a)
  local cur = redis.call('GET', k[1])
  if cur and string.match(cur, '^(.*)|%d+$') == a[1] then redis.call('DEL', k[1]); return 1 end
  return 0
end

redis.register_function('trib_cluster_init', cluster_init)
redis.register_function('trib_lease_take', lease_take)
redis.register_function('trib_lease_drop', lease_drop)
end
