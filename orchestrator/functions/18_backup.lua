-- SPDX-License-Identifier: Apache-2.0
-- ---- dynamic backup workers (DBW): how many of those selected a synchronous round waits for ----
-- The goal of a round is the k between quorum and places with the largest gain(k) / T(k):
--   gain(k) = (1 - l/2) N - (l/2) V/k       in units of squared norms; l = L * eta
--   T(k)    = time from the opening to the k-th update, monotone in k
-- N, V: 12_norms. All are averages in which the newest sample weighs balpha. docs/jobs.md says where they come from.
--   on the job:   bkind balpha bmetric bstep blr
--   :dbw  hash    t:<k> ms to the k-th update; V, N, l; f, pn, pg: loss, N and ||g'||^2 of the last version
--   on a round:   bk 'k|why|V|N|l|low|n|gain|ms|k:ms,..': why its goal is k; after: those that came when it was over,
--                 afterms: when (ms since it was opened, the first 64)
local backup = {}
local BACKUP_TIMES = 16       -- times kept in a round's record
local BACKUP_AFTER = 64

function backup.policy(k, spec)
  local b = spec.mode ~= 'async' and (spec.sync or {}).backup or {}
  redis.call('HDEL', k[1], 'bkind', 'balpha', 'bmetric', 'bstep', 'blr', 'norms')
  if (b.kind or 'none') == 'none' then
    redis.call('DEL', prefix(k[1]) .. 'dbw')
    return false
  end
  local lr = ((spec.aggregation or {}).server_opt or {}).lr or 1
  redis.call('HSET', k[1], 'bkind', b.kind, 'balpha', norms.text(b.alpha or 0.3), 'bmetric', b.metric or 'loss',
    'bstep', norms.text(b.step or 0), 'blr', norms.text(lr))
  return true
end

-- field of :dbw takes a sample. -> the average
function backup.sample(k, j, field, x)
  local key, alpha = prefix(k[1]) .. 'dbw', tonumber(j.balpha)
  local had = tonumber(redis.call('HGET', key, field) or '')
  x = had and (1 - alpha) * had + alpha * x or x
  redis.call('HSET', key, field, norms.text(x))
  return x
end

-- The nth update of the open round r is counted.
function backup.arrived(k, j, r, nth, t)
  if not j.bkind or nth > tonumber(j.selmax) then return end
  backup.sample(k, j, 't:' .. string.format('%d', nth), t - tonumber(redis.call('HGET', r, 'opened')))
end

-- A client that was selected in it comes when it is over.
function backup.after(k, j, r, t)
  local v = redis.call('HMGET', r, 'acc', 'opened', 'bk', 'afterms')
  if not j.bkind or not v[3] then return end
  local late = redis.call('HINCRBY', r, 'after', 1)
  if late <= BACKUP_AFTER then
    redis.call('HSET', r, 'afterms', (v[4] and v[4] .. ',' or '') .. string.format('%d', t - tonumber(v[2])))
  end
  if tonumber(v[1]) + late <= tonumber(j.selmax) then
    backup.sample(k, j, 't:' .. string.format('%d', tonumber(v[1]) + late), t - tonumber(v[2]))
  end
end

-- Its deadline ended it: those that are missing take at least so long.
function backup.ended(k, j, r, acc, t)
  if not j.bkind then return end
  local took = t - tonumber(redis.call('HGET', r, 'opened'))
  for n = acc + 1, tonumber(j.selmax) do backup.sample(k, j, 't:' .. string.format('%d', n), took) end
end

-- A version is there; metrics: of its clients. The step that made the version before is judged by the loss now.
function backup.learn(k, r, metrics)
  local v = redis.call('HMGET', k[1], 'bkind', 'balpha', 'bmetric', 'bstep', 'blr')
  if not v[1] then return end
  local j, key, m = {balpha = v[2]}, prefix(k[1]) .. 'dbw', norms.moments(r)
  local loss, step = metric_of(metrics, v[3]), tonumber(v[4])
  local last = redis.call('HMGET', key, 'f', 'pn', 'pg')
  if step > 0 and loss and last[1] and tonumber(last[3]) > 0 then
    local l = 2 * (step * (loss - tonumber(last[1])) / tonumber(v[5]) + tonumber(last[2])) / tonumber(last[3])
    backup.sample(k, j, 'l', math.max(0, math.min(2, l)))
  end
  redis.call('HDEL', key, 'f', 'pn', 'pg')
  if not m then return end
  backup.sample(k, j, 'V', m.variance)
  backup.sample(k, j, 'N', m.expected)
  if loss then
    redis.call('HSET', key, 'f', norms.text(loss), 'pn', norms.text(m.expected), 'pg', norms.text(m.mean))
  end
end

-- The goal of the round that is open or about to be, and what to keep of why: k, text; of a job without: its goal, nil.
function backup.goal(k, j)
  if not j.bkind then return j.goal, nil end
  local key, n = prefix(k[1]) .. 'dbw', tonumber(j.selmax)
  local low = math.min(n, math.max(2, tonumber(j.quorum)))      -- of one update no variance can be told
  local v = redis.call('HMGET', key, 'V', 'N', 'l')
  local V, N, l = tonumber(v[1] or ''), tonumber(v[2] or ''), tonumber(v[3] or '1')
  local best, why, most, gain, times, worst = n, V and 'no-gain' or 'learning', 0, 0, {}, 0
  for i = 1, n do
    local t = tonumber(redis.call('HGET', key, 't:' .. string.format('%d', i)) or '')
    if not t then
      best, why, gain = n, 'learning', 0
      break
    end
    worst = math.max(worst, t, 1)
    times[i] = worst
    local g = V and i >= low and (1 - l / 2) * N - l / 2 * V / i or 0
    if g > 0 and g / worst > most then best, why, most, gain = i, 'rate', g / worst, g end
  end
  local told, every = {}, math.max(1, math.ceil((n - low + 1) / BACKUP_TIMES))
  for i = low, n, every do
    if times[i] then told[#told + 1] = string.format('%d:%.9g', i, times[i]) end
  end
  return best, string.format('%d|%s|%.17g|%.17g|%.17g|%d|%d|%.17g|%.17g|%s', best, why, V or 0, N or 0, l, low, n, gain,
    times[best] or 0, table.concat(told, ','))
end

-- The open round r gets its goal. -> the goal
function backup.set(k, j, r)
  local goal, text = backup.goal(k, j)
  if text then redis.call('HSET', r, 'bk', text) else redis.call('HDEL', r, 'bk') end
  return goal
end
