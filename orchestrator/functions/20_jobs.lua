-- SPDX-License-Identifier: Apache-2.0
-- What the leader needs to plan placement (26_placement).
local function placement_fields(k, spec)
  local p = spec.placement or {}
  redis.call('HSET', k[1], 'place', (p.policy or 'bestfit') .. '|' .. tostring(p.window_s or 1))
end

-- What the transitions need of the spec beside its numbers.
local function job_policy(k, text, hooks_since)
  local ok, spec = pcall(cjson.decode, text)
  if not ok or type(spec) ~= 'table' then return end
  policy_fields(k[1], spec)
  if backup.policy(k, spec) then redis.call('HSET', k[1], 'norms', 1) end
  pool_policy(k, spec)
  selector_policy(k, spec)
  stop_policy(k, spec)
  checkpoint_policy(k, spec)
  placement_fields(k, spec)
  hook_policy(k, spec, hooks_since)
end

-- ARGV token id name spec_json goal quorum selmax deadline_ms lease_ms stop_rounds tenant [init: 'job|version']
-- -> OK | EXISTS | FULL (its pool) | QUOTA text
local function job_create(k, a)
  if redis.call('EXISTS', k[1]) == 1 then return {'EXISTS'} end
  if not pool_room(a[11] or 'default', a[4]) then return {'FULL'} end
  local t = now()
  local over = quota_over(a[11] or 'default', {jobs = 1}, t)
  if over then return {'QUOTA', over} end
  local e, who = string.match(a[1], '^(%d+)|(.+)$')
  redis.call('HSET', k[1], 'id', a[2], 'name', a[3], 'spec', a[4], 'state', 'created', 'created', t,
    'epoch', e or '0', 'leader', who or '', 'round', 0, 'version', -1, 'goal', a[5], 'quorum', a[6],
    'selmax', a[7], 'deadline_ms', a[8], 'lease_ms', a[9], 'stop_rounds', a[10], 'pubround', 0,
    'tenant', a[11] or 'default', 'gen', 1)
  job_policy(k, a[4], '0-0')
  if (a[12] or '') ~= '' then
    redis.call('HSET', k[1], 'init', a[12], 'reason',
      'waits for a node that has version ' .. string.gsub(a[12], '^(.*)|(%d+)$', '%2 of %1'))
  end
  redis.call('ZADD', 'trib:jobs', t, a[2])
  redis.call('SADD', tenant_jobs(a[11] or 'default'), a[2])
  redis.call('SADD', 'trib:tenants', a[11] or 'default')
  event(k[1], 't', 'job.created', 'name', a[3])
  wake(k[1], 'job')
  return {'OK', t}
end

local ok_next = {
  created = {running = 1, stopped = 1, failed = 1},
  running = {paused = 1, finished = 1, stopped = 1, failed = 1},
  paused = {running = 1, stopped = 1, failed = 1},
}
-- ARGV token from to reason -> OK | SAME | STATE s | FENCED | NOJOB
local function job_set(k, a)
  local st = redis.call('HGET', k[1], 'state')
  if not st then return {'NOJOB'} end
  if not fence(k[1], a[1]) then return {'FENCED'} end
  if st == a[3] then return {'SAME'} end
  if st ~= a[2] or not (ok_next[st] and ok_next[st][a[3]]) then return {'STATE', st} end
  if not ok_next[a[3]] then job_over(k, a[3], a[4] or ''); return {'OK'} end
  if redis.call('HEXISTS', k[1], 'drain') == 1 then return {'STATE', 'draining'} end
  if st == 'created' then redis.call('HSETNX', k[1], 'started', now()) end
  redis.call('HSET', k[1], 'state', a[3], 'reason', a[4] or '')
  event(k[1], 't', 'job.' .. a[3], 'reason', a[4] or '')
  wake(k[1], 'job')
  return {'OK'}
end

-- The initial model (version 0), which fixes the layout. ARGV digest data_bytes elements header_json
-- -> OK | DUP | CONFLICT | STATE s | NOJOB
local function model_init(k, a)
  local j = redis.call('HMGET', k[1], 'state', 'version')
  if not j[1] then return {'NOJOB'} end
  local have = redis.call('HGET', prefix(k[1]) .. 'models', '0')
  if have then
    if string.match(have, '^([^|]*)') == a[1] then return {'DUP'} end
    return {'CONFLICT'}
  end
  if j[1] ~= 'created' then return {'STATE', j[1]} end
  redis.call('HDEL', k[1], 'init')
  redis.call('HSET', prefix(k[1]) .. 'models', '0', a[1] .. '|' .. a[2] .. '|0|' .. now())
  redis.call('HSET', k[1], 'version', 0, 'bytes', a[2], 'params', a[3], 'header', a[4], 'layout', a[1])
  event(k[1], 't', 'model.published', 'v', 0, 'digest', a[1])
  wake(k[1], 'job')
  return {'OK'}
end

-- ARGV token purge(0/1: model files too) -> OK keys | STATE s | FENCED | NOJOB. Only of a job that is over
-- (or never began). Wakes with 'gone', and 'purge' when the agents shall remove the model files.
local function job_delete(k, a)
  local j = redis.call('HMGET', k[1], 'state', 'round', 'id', 'pool', 'tenant')
  if not j[1] then return {'NOJOB'} end
  if not fence(k[1], a[1]) then return {'FENCED'} end
  if j[1] == 'running' or j[1] == 'paused' then return {'STATE', j[1]} end
  local p, n = prefix(k[1]), 0
  for r = math.max(1, tonumber(j[2]) - ROUNDS_MAX), tonumber(j[2]) do
    local b = p .. 'r:' .. r
    n = n + redis.call('UNLINK', b, b .. ':sel', b .. ':upd', b .. ':met', b .. ':late')
  end
  n = n + redis.call('UNLINK', k[1], p .. 'models', p .. 'ev', p .. 'tok', p .. 'tokid', p .. 'aupd', p .. 'infl',
    p .. 'last', p .. 'tree', p .. 'at', p .. 'old', p .. 'pin', p .. 'hook', p .. 'up', p .. 'dbw', p .. 'known',
    p .. 'mem')
  redis.call('SREM', 'trib:hooks', j[3])
  redis.call('ZREM', 'trib:jobs', j[3])
  pool_leave(j[4], j[3])
  redis.call('SREM', tenant_jobs(j[5] or 'default'), j[3])
  wake(k[1], 'gone')
  if a[2] == '1' then wake(k[1], 'purge') end
  return {'OK', n}
end

redis.register_function('trib_job_create', job_create)
redis.register_function('trib_job_set', job_set)
redis.register_function('trib_model_init', model_init)
redis.register_function('trib_job_delete', job_delete)
