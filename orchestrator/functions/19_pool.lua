-- SPDX-License-Identifier: Apache-2.0
-- ---- several jobs of a tenant that share the clients of a pool (45_pool.lua picks) ----
--   trib:pool:<tenant>/<name> zset  job -> when it joined; at most POOL_MAX, jobs that are over make room
--   on the job: pool '<tenant>/<name>', pshare, pmin, psize (of its spec), ptok 1: its clients need tokens
local POOL_MAX = 64

local function job_is_over(state) return state == 'finished' or state == 'stopped' or state == 'failed' end

local function pool_policy(k, spec)
  local p = spec.pool or {}
  redis.call('HDEL', k[1], 'pool', 'pshare', 'pmin', 'psize', 'ptok')
  if (p.name or '') == '' then return end
  local j = redis.call('HMGET', k[1], 'id', 'tenant')
  local pool = (j[2] or 'default') .. '/' .. p.name
  redis.call('HSET', k[1], 'pool', pool, 'pshare', string.format('%.17g', p.share or 1), 'pmin', p.min or 1,
    'psize', p.size or 0)
  if ((spec.auth or {}).clients or 'open') ~= 'open' then redis.call('HSET', k[1], 'ptok', 1) end
  redis.call('ZADD', 'trib:pool:' .. pool, 'NX', now(), j[1])
end

-- Is there room for one more in the pool that the spec names?
local function pool_room(tenant, text)
  local ok, spec = pcall(cjson.decode, text)
  local name = ok and type(spec) == 'table' and (spec.pool or {}).name or ''
  local key = 'trib:pool:' .. tenant .. '/' .. name
  if name == '' or redis.call('ZCARD', key) < POOL_MAX then return true end
  local ids = redis.call('ZRANGE', key, 0, -1)
  for i = 1, #ids do
    local state = redis.call('HGET', 'trib:{' .. ids[i] .. '}:job', 'state')
    if not state or job_is_over(state) then redis.call('ZREM', key, ids[i]) end
  end
  return redis.call('ZCARD', key) < POOL_MAX
end

local function pool_leave(pool, id)
  if pool then redis.call('ZREM', 'trib:pool:' .. pool, id) end
end

-- A client's token by its hash: of this job, or of another of its pool. -> 'client|scope|expires|created' or nil
local function token_find(k, a)
  local own = redis.call('HGET', prefix(k[1]) .. 'tok', a[1])
  local pool = not own and redis.call('HGET', k[1], 'pool')
  if not pool then return own end
  local ids = redis.call('ZRANGE', 'trib:pool:' .. pool, 0, POOL_MAX - 1)
  for i = 1, #ids do
    local token = redis.call('HGET', 'trib:{' .. ids[i] .. '}:tok', a[1])
    if token then return token end
  end
  return false
end

redis.register_function('trib_token_find', token_find)
