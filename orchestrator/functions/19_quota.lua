-- SPDX-License-Identifier: Apache-2.0
-- ---- quotas of tenants (--quotas of the orchestrator) ----
--   trib:quotas hash           tenant -> 'jobs|clients|slots|bytes', '*' -> of all tenants not named; 0 = no limit
--   trib:tenants set           those who ever had a job
--   trib:tenant:<t>:jobs set   its jobs that are not over
--   :up zset of a job          update -> end of its lease: uploads under way (reserved, not committed yet)
-- Nothing is counted up and down: what a tenant uses is read from its jobs' records whenever it matters, so that it
-- cannot drift, whatever was killed when. Places and uploads whose lease ended use nothing, nor do uploads that began before
-- there were any quotas.
local QUOTAS = {'jobs', 'clients', 'slots', 'bytes'}

local function tenant_jobs(tenant) return 'trib:tenant:' .. tenant .. ':jobs' end

-- Limits by name, or nil when there are none.
local function quota_of(tenant)
  local q = redis.call('HMGET', 'trib:quotas', tenant, '*')
  local text = q[1] or q[2]
  if not text then return nil end
  local limits, n = {}, 0
  for v in string.gmatch(text, '%d+') do
    n = n + 1
    limits[QUOTAS[n] or ''] = tonumber(v) > 0 and tonumber(v) or nil
  end
  return limits
end

local function quota_use(tenant, t)
  local key = tenant_jobs(tenant)
  local use, ids = {jobs = 0, clients = 0, slots = 0, bytes = 0}, redis.call('SMEMBERS', key)
  for i = 1, #ids do
    local p = 'trib:{' .. ids[i] .. '}:'
    local j = redis.call('HMGET', p .. 'job', 'state', 'round', 'bytes')
    if not j[1] or job_is_over(j[1]) then
      redis.call('SREM', key, ids[i])
    else
      local up = redis.call('ZCOUNT', p .. 'up', '(' .. t, '+inf')
      use.jobs, use.slots, use.bytes = use.jobs + 1, use.slots + up, use.bytes + up * tonumber(j[3] or '0')
      use.clients = use.clients + redis.call('ZCOUNT', p .. 'infl', '(' .. t, '+inf') +
        redis.call('ZCOUNT', p .. 'r:' .. j[2] .. ':sel', '(' .. t, '(+inf')
    end
  end
  return use
end

-- What is said when `more` ({name = amount}) would be too much, else nil.
local function quota_over(tenant, more, t)
  local limits, use = quota_of(tenant), nil
  if not limits then return nil end
  for i = 1, #QUOTAS do
    local name = QUOTAS[i]
    if more[name] and limits[name] then
      use = use or quota_use(tenant, t)
      if use[name] + more[name] > limits[name] then
        return string.format('%s: limit %.0f, used %.0f', name, limits[name], use[name])
      end
    end
  end
  return nil
end

-- Would one more client be out of more than its tenant may have?
local function quota_place(j, t)
  local over = quota_over(j.tenant or 'default', {clients = 1}, t)
  return over and {'QUOTA', over}
end

-- A place whose lease ended used nothing since: does it fit in again?
local function quota_revived(k, a, t)
  local j = redis.call('HMGET', k[1], 'tenant', 'mode')
  local limits = quota_of(j[1] or 'default')
  if not limits or not limits.clients then return nil end
  local p, async = prefix(k[1]), j[2] == 'async'
  local ends = redis.call('ZSCORE', p .. (async and 'infl' or 'r:' .. a[3] .. ':sel'), a[1])
  if ends and tonumber(ends) > t then return nil end
  if not ends and not (async and string.match(redis.call('HGET', p .. 'aupd', a[1]) or '', '^[SR]')) then return nil end
  return quota_over(j[1] or 'default', {clients = 1}, t)
end

-- An upload keeps its place while it moves (41_progress.lua): for as long as a silent client keeps one, or at least a
-- while that no short silence of the network ends; at most for the time that the gateway gives (the slowest body).
local UPLOAD_LEASE_MIN_MS = 4000
local function upload_lease(most, job_lease)
  return math.min(tonumber(most), math.max(tonumber(job_lease), UPLOAD_LEASE_MIN_MS))
end

-- A reservation (`reserve`), if there is room for the upload; when not, it is taken back (`undo`). a: as of reserve
local function quota_upload(k, a, reserve, undo)
  if redis.call('EXISTS', 'trib:quotas') == 0 then return reserve(k, a) end
  local revived = quota_revived(k, a, now())
  if revived then return {'QUOTA', revived} end
  local answer = reserve(k, a)
  if answer[1] ~= 'OK' then return answer end
  local up, t = prefix(k[1]) .. 'up', now()
  local ends = tonumber(redis.call('ZSCORE', up, a[2]) or '0')
  if ends <= t then
    local j = redis.call('HMGET', k[1], 'tenant', 'bytes')
    local over = quota_over(j[1] or 'default', {slots = 1, bytes = tonumber(j[2] or '0')}, t)
    if over then
      undo(k, {a[1], a[2], a[3]})
      return {'QUOTA', over}
    end
    redis.call('ZREMRANGEBYSCORE', up, '-inf', t)
  end
  redis.call('ZADD', up, t + upload_lease(a[4], redis.call('HGET', k[1], 'lease_ms')), a[2])
  return answer
end

-- The upload is over, whatever became of it.
local function quota_uploaded(k, id, answer)
  if answer[1] ~= 'LATER' then redis.call('ZREM', prefix(k[1]) .. 'up', id) end
  return answer
end

-- The leader's file. KEYS trib:quotas ; ARGV token 'tenant=jobs|clients|slots|bytes,..' ('' = no quotas) -> OK | FENCED
local function quotas_set(k, a)
  local e = string.match(a[1], '^(%d+)|')
  if not e or tonumber(e) < tonumber(redis.call('GET', 'trib:fence') or '0') then return {'FENCED'} end
  redis.call('DEL', k[1])
  for tenant, limits in string.gmatch(a[2], '([^=,]+)=([^,]+)') do redis.call('HSET', k[1], tenant, limits) end
  return {'OK'}
end

-- KEYS trib:quotas ; ARGV tenant ('' = all) -> OK 'tenant;jobs=limit|used,clients=.. tenant;..' (limit 0 = none)
local function tenants_view(k, a)
  local names, out, t = {a[1]}, {}, now()
  if a[1] == '' then
    names = redis.call('SMEMBERS', 'trib:tenants')
    table.sort(names)
  end
  for n = 1, math.min(#names, 1024) do
    local limits, use, text = quota_of(names[n]) or {}, quota_use(names[n], t), {}
    for i = 1, #QUOTAS do
      text[i] = string.format('%s=%.0f|%.0f', QUOTAS[i], limits[QUOTAS[i]] or 0, use[QUOTAS[i]])
    end
    out[n] = names[n] .. ';' .. table.concat(text, ',')
  end
  return {'OK', table.concat(out, ' ')}
end

redis.register_function('trib_quotas_set', quotas_set)
redis.register_function('trib_tenants_view', tenants_view)
