-- SPDX-License-Identifier: Apache-2.0
-- ---- several jobs of a tenant that share the clients of a pool (45_pool.lua picks) ----
--   trib:pool:<tenant>/<name> zset  job -> when it joined; at most POOL_MAX, jobs that are over make room
--   on the job: pool '<tenant>/<name>', pshare, pmin, psize (of its spec), ptok 1: its clients need tokens
--               pscore variance or deviation: its score comes from its updates' norms; pseen 'k|spread|mean;..' of the
--               newest versions that have POOL_SEEN updates together; pratio what they say
local POOL_MAX = 64
local POOL_SEEN = 8

local function job_is_over(state) return state == 'finished' or state == 'stopped' or state == 'failed' end

local function pool_policy(k, spec)
  local p = spec.pool or {}
  redis.call('HDEL', k[1], 'pool', 'pshare', 'pmin', 'psize', 'ptok', 'pscore')
  if (p.name or '') == '' then return end
  local j = redis.call('HMGET', k[1], 'id', 'tenant')
  local pool = (j[2] or 'default') .. '/' .. p.name
  redis.call('HSET', k[1], 'pool', pool, 'pshare', string.format('%.17g', p.share or 1), 'pmin', p.min or 1,
    'psize', p.size or 0)
  if (p.score or 'share') ~= 'share' then
    redis.call('HSET', k[1], 'pscore', p.score, 'norms', 1)
  else
    redis.call('HDEL', k[1], 'pseen', 'pratio')
  end
  if ((spec.auth or {}).clients or 'open') ~= 'open' then redis.call('HSET', k[1], 'ptok', 1) end
  redis.call('ZADD', 'trib:pool:' .. pool, 'NX', now(), j[1])
end

-- A version was made from round r (FedAST): how much its updates differ among each other, to how large their mean is:
-- SUM||g-g'||^2 / SUM k||g'||^2 over the newest versions. One that was made of a single update says nothing.
local function pool_learn(k, r)
  local j = redis.call('HMGET', k[1], 'pscore', 'pseen')
  local m = j[1] and norms.moments(r)
  if not m then return end
  local rows, have, spread, mean = {}, 0, 0, 0
  local function take(text)
    local n, s, g = string.match(text, '^(%d+)|([^|]*)|(.*)$')
    rows[#rows + 1], have, spread, mean = text, have + n, spread + n * tonumber(s), mean + n * tonumber(g)
  end
  take(string.format('%d|%.17g|%.17g', m.count, m.spread, m.mean))
  for text in string.gmatch(j[2] or '', '[^;]+') do
    if have < POOL_SEEN then take(text) end
  end
  local ratio = mean > 0 and spread / mean or 1e6
  redis.call('HSET', k[1], 'pseen', table.concat(rows, ';'), 'pratio', norms.text(math.max(1e-6, math.min(1e6, ratio))))
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
