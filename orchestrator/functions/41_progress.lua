-- SPDX-License-Identifier: Apache-2.0
-- ---- leases end by lack of progress: the gateway says every now and then that a body still moves ----

-- ARGV client update_id round lease_max_ms -> OK lease_ms | NOOP (no place of this update, or it ended: nothing is revived)
local function progress(k, a)
  local p, t = prefix(k[1]), now()
  local j = redis.call('HMGET', k[1], 'lease_ms', 'state')
  if not j[1] or (j[2] ~= 'running' and j[2] ~= 'paused') then return {'NOOP'} end
  local lease = upload_lease(a[4], j[1])
  local ends, out, upd = t + lease, p .. 'infl', p .. 'aupd'
  local s, id, rest = string.match(redis.call('HGET', upd, a[1]) or '', '^([SR])|([^|]*)|%d+(.*)$')
  if id ~= a[2] then
    out, upd = p .. 'r:' .. a[3] .. ':sel', p .. 'r:' .. a[3] .. ':upd'
    s, id, rest = string.match(redis.call('HGET', upd, a[1]) or '', '^([SR])|([^|]*)|%d+(.*)$')
  end
  local until_ = redis.call('ZSCORE', out, a[1])
  if id ~= a[2] or not until_ or tonumber(until_) <= t then return {'NOOP'} end
  if tonumber(until_) < ends then
    redis.call('ZADD', out, 'XX', ends, a[1])
    redis.call('HSET', upd, a[1], s .. '|' .. id .. '|' .. string.format('%.0f', ends) .. rest)
    redis.call('ZADD', p .. 'up', 'XX', ends, a[2])
  end
  return {'OK', lease}
end

redis.register_function('trib_progress', progress)
