-- SPDX-License-Identifier: Apache-2.0
-- What an agent must know of the round to be aggregated: the one after the last that is over. ARGV node -> {state,
-- version, params, bytes, round, rstate, base, acc, wsum, acc_on_node, spec, selmax, goal, divisor} (texts; '' when
-- absent; divisor: what the sum is divided by, fixed point 2^-20, '0' = the sum's own weights), then of several nodes
-- {top, its url, weight_on_node, boot, task, moves}, see 25_nodes, 'norms' when the mean's norm is wanted, ms left to the
-- deadline of an open round ('0' else), tenant | NOJOB
local function node_sync(k, a)
  local j = redis.call('HMGET', k[1], 'state', 'version', 'params', 'bytes', 'round', 'spec', 'pubround', 'adenom',
    'apop', 'anorm', 'norms', 'tenant')
  if not j[1] then return {'NOJOB'} end
  local work = math.min(tonumber(j[7] or '0') + 1, tonumber(j[5]))
  local base = prefix(k[1]) .. 'r:' .. work
  local r = redis.call('HMGET', base, 'state', 'base', 'acc', 'wsum', 'n:' .. a[1], 'selmax', 'goal', 'wraw',
    'denom', 'deadline')
  local denom, pop, norm = j[8], j[9], j[10]
  if r[9] then denom, pop, norm = string.match(r[9], '^([^|]*)|([^|]*)|(.*)$') end      -- as it was when it ended
  local divisor = divisor_of({adenom = denom, apop = pop, anorm = norm ~= '' and norm or nil},
    {acc = r[3], goal = r[7], wraw = r[8]})
  local top, url, w, boot, task, moves, state = sync_nodes(k, base, a[1])
  return {j[1], j[2], j[3] or '', j[4] or '', tostring(work), state, r[2] or '', r[3] or '0', r[4] or '0',
    r[5] or '0', j[6], r[6] or '0', r[7] or '0', divisor, top, url, w, boot, task, moves, j[11] and 'norms' or '',
    state == 'open' and string.format('%d', math.max(1, tonumber(r[10]) - now())) or '0', j[12] or 'default'}
end

-- The node's top is done: the model file of version base+1 is written. First report wins.
-- ARGV n updates weight digest node boot ('' = not told) [squared norm of the mean] -> OK | DUP | LOSER digest | NOOP state | COUNT acc wsum
--   | GONE (this memory was declared lost) | TOP node
local function task_done(k, a)
  local base = prefix(k[1]) .. 'r:' .. a[1]
  local r = redis.call('HMGET', base, 'state', 'acc', 'wsum', 'task', 'top', 'losing')
  if not r[1] then return {'NOJOB'} end
  if r[4] then
    if r[4] == a[4] then return {'DUP'} end
    return {'LOSER', r[4]}
  end
  if r[1] ~= 'closing' then return {'NOOP', r[1]} end
  if r[6] or r[2] ~= a[2] or r[3] ~= a[3] then return {'COUNT', r[2], r[3]} end
  if (a[6] or '') ~= '' and redis.call('HGET', k[1], 'b:' .. a[5]) ~= a[6] then return {'GONE'} end
  if r[5] and r[5] ~= a[5] then return {'TOP', r[5]} end
  redis.call('HSET', base, 'task', a[4], 'tasknode', a[5], 'taskms', now())
  redis.call('HDEL', base, 'nmean')
  if (a[7] or '') ~= '' then redis.call('HSET', base, 'nmean', a[7]) end
  redis.call('HSET', prefix(k[1]) .. 'at', tonumber(redis.call('HGET', base, 'base')) + 1, a[5])
  wake(k[1], 'done')
  return {'OK'}
end

-- Compare-and-set of the version: nobody needs to lead for that. ARGV (unused) n expect_version digest bytes
-- -> OK version | DUP version | CONFLICT version | NOTASK | NOOP state | WAIT ms (for a second copy)
local function publish_now(k, a)
  local base = prefix(k[1]) .. 'r:' .. a[2]
  local j = redis.call('HMGET', k[1], 'version', 'state')
  local v = tonumber(j[1])
  local r = redis.call('HMGET', base, 'state', 'task', 'acc', 'kept', 'losing')
  if v ~= tonumber(a[3]) then
    local d = redis.call('HGET', prefix(k[1]) .. 'models', tonumber(a[3]) + 1)
    if d and string.match(d, '^([^|]*)') == a[4] then return {'DUP', tonumber(a[3]) + 1} end
    return {'CONFLICT', v}
  end
  if r[1] ~= 'closing' or r[5] then return {'NOOP', r[5] and 'losing' or r[1] or 'none'} end
  if j[2] ~= 'running' and j[2] ~= 'paused' then return {'NOOP', j[2]} end     -- its updates were declared abandoned
  if r[2] ~= a[4] then return {'NOTASK'} end
  local left = copy_wait(k, base, v + 1)
  if left then return {'WAIT', left} end
  local t, metrics = now(), metrics_text(base)
  redis.call('HSET', prefix(k[1]) .. 'models', v + 1, a[4] .. '|' .. a[5] .. '|' .. a[2] .. '|' .. t .. '|' .. metrics)
  redis.call('HSET', k[1], 'version', v + 1, 'metrics', metrics)
  redis.call('HINCRBY', k[1], 'upds', string.format('%d', tonumber(r[3]) - tonumber(r[4] or '0')))
  redis.call('HSET', base, 'state', 'published', 'published', t, 'version', v + 1, 'digest', a[4], 'metrics', metrics,
    'copies', math.max(1, copies(v + 1, k, '')))
  redis.call('HDEL', base, 'met')
  backup.learn(k, base, metrics)
  pool_learn(k, base)
  checkpoints_hold(k, base)
  redis.call('UNLINK', base .. ':sel', base .. ':met')
  round_took(k, base, t)
  round_over(k)
  event(k[1], 't', 'model.published', 'v', v + 1, 'n', a[2], 'acc', r[3], 'digest', a[4], 'metrics', metrics)
  checkpoints_prune(k, v + 1, metrics)
  local due = stop_due(k, true)
  if due then redis.call('HSET', k[1], 'stopwhy', due) end
  wake(k[1], 'publish')
  return {'OK', v + 1}
end

-- The leader's: what waited for a second copy, or was reported by trib_task_done. ARGV token, then as above | FENCED
local function publish(k, a)
  if redis.call('EXISTS', k[1]) == 0 then return {'NOJOB'} end
  if not fence(k[1], a[1]) then return {'FENCED'} end
  return publish_now(k, a)
end

-- As trib_task_done, and the version is published with it unless it waits for a second copy.
local function task_report(k, a)
  local answer = task_done(k, a)
  if answer[1] == 'OK' then
    local base = redis.call('HGET', prefix(k[1]) .. 'r:' .. a[1], 'base')
    publish_now(k, {'', a[1], base, a[4], redis.call('HGET', k[1], 'bytes') or '0'})
  end
  return answer
end

-- Jobs whose round under way counts updates of this node (an agent that does not know one of them has lost
-- its memory of it). KEYS trib:jobs ; ARGV node offset count -> {jobs looked at, id ...}
local function node_jobs(k, a)
  local ids = redis.call('ZRANGE', k[1], a[2], tonumber(a[2]) + tonumber(a[3]) - 1)
  local out = {#ids}
  for i = 1, #ids do
    local p = 'trib:{' .. ids[i] .. '}:'
    local j = redis.call('HMGET', p .. 'job', 'state', 'round', 'pubround')
    if j[1] == 'running' or j[1] == 'paused' then
      for n = tonumber(j[3] or '0') + 1, tonumber(j[2]) do          -- several only in asynchronous jobs
        local r = redis.call('HMGET', p .. 'r:' .. n, 'state', 'n:' .. a[1])
        if (r[1] == 'open' or r[1] == 'closing') and tonumber(r[2] or '0') > 0 then
          out[#out + 1] = ids[i]
          break
        end
      end
    end
  end
  return out
end

redis.register_function('trib_node_sync', node_sync)
redis.register_function('trib_task_done', task_done)
redis.register_function('trib_publish', publish)
redis.register_function('trib_task_report', task_report)
redis.register_function('trib_node_jobs', node_jobs)
