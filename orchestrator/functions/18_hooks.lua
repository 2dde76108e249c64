-- SPDX-License-Identifier: Apache-2.0
-- ---- notifications (orchestrator/webhooks.c) ----
--   trib:hooks  set   jobs that have some
--   hooks on the job: spec.notifications as JSON; :hook hash index -> id of the last event that was delivered

local HOOK_JOBS_MAX = 1024    -- jobs whose notifications are sent

-- since: where a new one begins, an id of the job's events
local function hook_policy(k, spec, since)
  local hooks, id = spec.notifications or {}, string.match(k[1], '{(.-)}')
  local had = redis.call('HEXISTS', k[1], 'hooks')
  if #hooks == 0 and had == 0 then return end
  if #hooks == 0 then
    redis.call('HDEL', k[1], 'hooks')
    redis.call('SREM', 'trib:hooks', id)
    redis.call('DEL', prefix(k[1]) .. 'hook')
  else
    redis.call('HSET', k[1], 'hooks', cjson.encode(hooks))
    redis.call('SADD', 'trib:hooks', id)
    for i = 1, #hooks do redis.call('HSETNX', prefix(k[1]) .. 'hook', i - 1, since) end
    for i = #hooks, 3 do redis.call('HDEL', prefix(k[1]) .. 'hook', i) end
  end
  wake(k[1], 'hooks')
end

local function last_event(k)
  local e = redis.call('XREVRANGE', prefix(k[1]) .. 'ev', '+', '-', 'COUNT', 1)
  return e[1] and e[1][1] or '0-0'
end

-- KEYS trib:hooks -> {OK, job, hooks as JSON, cursor 0..3, job, ..}: six texts a job
local function hooks_list(k)
  local out, ids = {'OK'}, redis.call('SMEMBERS', k[1])
  for i = 1, math.min(#ids, HOOK_JOBS_MAX) do
    local p = 'trib:{' .. ids[i] .. '}:'
    local hooks = redis.call('HGET', p .. 'job', 'hooks')
    if hooks then
      local c = redis.call('HMGET', p .. 'hook', 0, 1, 2, 3)
      out[#out + 1] = ids[i]
      out[#out + 1] = hooks
      for n = 1, 4 do out[#out + 1] = c[n] or '' end
    else
      redis.call('SREM', k[1], ids[i])
    end
  end
  return out
end

-- ARGV token index id -> OK | FENCED | NOJOB
local function hook_sent(k, a)
  if redis.call('EXISTS', k[1]) == 0 then return {'NOJOB'} end
  if not fence(k[1], a[1]) then return {'FENCED'} end
  local had = redis.call('HGET', prefix(k[1]) .. 'hook', a[2])
  if had then                                           -- else it was taken out of the spec meanwhile
    local hm, hs = string.match(had, '^(%d+)%-(%d+)$')
    local m, s = string.match(a[3], '^(%d+)%-(%d+)$')
    if tonumber(m) > tonumber(hm) or (m == hm and tonumber(s) > tonumber(hs)) then
      redis.call('HSET', prefix(k[1]) .. 'hook', a[2], a[3])
    end
  end
  return {'OK'}
end

redis.register_function('trib_hooks_list', hooks_list)
redis.register_function('trib_hook_sent', hook_sent)
