-- SPDX-License-Identifier: Apache-2.0
-- ---- what clients measure, when a job has enough, how it ends in order ----
--   on the job:  metrics 'name=value,..' of the last version; upds updates counted in versions; stopwhy: it has enough;
--                drain final state, drainwhy: nobody is selected any more; started ms
--                s:updates s:ms s:target 'metric|mode|value' s:patience 'metric|mode|rounds|min_delta' (of the spec)
--                best 'metric|mode|value|versions since'
--   on a round:  met 'name|sum|weight;..' while it is open, metrics 'name=value,..' of what was published,
--                partial updates counted whose clients did a part of the work; metleft metrics not taken for lack of room; :met hash update -> 'weight|metrics' (for what is lost)

local METRICS_MAX = 32        -- names in a round, of all its clients together

-- Weighted sums of a round; sign -1 takes back what was lost.
local function metrics_move(r, text, weight, sign)
  local sums, order, left = {}, {}, 0
  for name, s, w in string.gmatch(redis.call('HGET', r, 'met') or '', '([^|;]+)|([^|;]+)|([^|;]+)') do
    order[#order + 1] = name
    sums[name] = {tonumber(s), tonumber(w)}
  end
  for name, v in string.gmatch(text, '([^=,]+)=([^=,]+)') do
    if not sums[name] and sign > 0 and #order < METRICS_MAX then
      order[#order + 1] = name
      sums[name] = {0, 0}
    end
    local s = sums[name]
    if s then
      s[1], s[2] = s[1] + sign * weight * tonumber(v), s[2] + sign * weight
    else
      left = left + 1
    end
  end
  for i = 1, #order do
    order[i] = string.format('%s|%.17g|%.17g', order[i], sums[order[i]][1], sums[order[i]][2])
  end
  redis.call('HSET', r, 'met', table.concat(order, ';'))
  if left > 0 and sign > 0 then redis.call('HINCRBY', r, 'metleft', left) end
end

-- Its client says that it did less than all that was asked: metric `work`, the part done (FedProx).
local function partial(r, text, sign)
  local done = tonumber(string.match(',' .. text, ',work=([^,]+)') or '1')
  if done < 1 then redis.call('HINCRBY', r, 'partial', sign) end
end

-- An update counts in round r, with what its client measured ('' or nil: nothing).
local function metrics_add(r, id, weight, text)
  if not text or text == '' then return end
  redis.call('HSET', r .. ':met', id, weight .. '|' .. text)
  metrics_move(r, text, tonumber(weight), 1)
  partial(r, text, 1)
end

-- Answer to a commit or reservation: the update counts already. Whoever committed it (the agent, for a gateway that
-- died) may not have known what its client measured.
local function metrics_late(k, answer, id, text)
  if (answer[1] ~= 'SAME' and answer[1] ~= 'DUP') or (text or '') == '' then return answer end
  local r = prefix(k[1]) .. 'r:' .. answer[6]
  local state = redis.call('HGET', r, 'state')
  if (state == 'open' or state == 'closing') and redis.call('HEXISTS', r .. ':met', id) == 0 then
    metrics_add(r, id, answer[4], text)
  end
  return answer
end

local function metrics_drop(r, id)
  norms.drop(r, id)
  local weight, text = string.match(redis.call('HGET', r .. ':met', id) or '', '^(%d+)|(.*)$')
  if not weight then return end
  redis.call('HDEL', r .. ':met', id)
  metrics_move(r, text, tonumber(weight), -1)
  partial(r, text, -1)
end

local function metrics_text(r)
  local out = {}
  for name, s, w in string.gmatch(redis.call('HGET', r, 'met') or '', '([^|;]+)|([^|;]+)|([^|;]+)') do
    if tonumber(w) > 0.5 then out[#out + 1] = string.format('%s=%.9g', name, tonumber(s) / tonumber(w)) end
  end
  return table.concat(out, ',')
end

local function metric_of(text, name)
  for n, v in string.gmatch(text or '', '([^=,]+)=([^=,]+)') do
    if n == name then return tonumber(v) end
  end
end

-- What of spec.stop the transitions look at.
local function stop_policy(k, spec)
  local s = spec.stop or {}
  local g, p = s.target or {}, s.patience or {}
  redis.call('HDEL', k[1], 's:updates', 's:ms', 's:target', 's:patience')
  if (s.updates or 0) > 0 then redis.call('HSET', k[1], 's:updates', s.updates) end
  if (s.seconds or 0) > 0 then redis.call('HSET', k[1], 's:ms', math.floor(s.seconds * 1000 + 0.5)) end
  if (g.metric or '') ~= '' then
    redis.call('HSET', k[1], 's:target', g.metric .. '|' .. (g.mode or 'max') .. '|' .. string.format('%.17g', g.value or 0))
  end
  if (p.metric or '') ~= '' then
    redis.call('HSET', k[1], 's:patience', p.metric .. '|' .. (p.mode or 'min') .. '|' .. (p.rounds or 10) .. '|' ..
      string.format('%.17g', p.min_delta or 0))
  end
end

-- A version came with metric x: is the best one `rounds` versions old?
local function patience_due(k, rule, text)
  local name, mode, rounds, delta = string.match(rule, '^([^|]*)|([^|]*)|([^|]*)|(.*)$')
  local x = metric_of(text, name)
  if not x then return nil end
  local key, best, since = string.match(redis.call('HGET', k[1], 'best') or '', '^([^|]*|[^|]*)|([^|]*)|(%d+)$')
  best = key == name .. '|' .. mode and tonumber(best) or nil
  since = best and tonumber(since) + 1 or 0
  local gain = best and (mode == 'min' and best - x or x - best)
  if not best or gain > tonumber(delta) then best, since = x, 0 end
  redis.call('HSET', k[1], 'best', string.format('%s|%s|%.17g|%d', name, mode, best, since))
  if since >= tonumber(rounds) then
    return string.format('stop.patience: %s is no better than %.6g for %d versions', name, best, since)
  end
end

-- Why the job has enough, or nil. published: a version has just come (patience counts those).
local function stop_due(k, published)
  local s = redis.call('HMGET', k[1], 'stop_rounds', 's:updates', 's:target', 's:patience', 'version', 'upds', 'metrics', 'backs')
  local version, due = tonumber(s[5]) - tonumber(s[8] or '0'), nil
  if s[4] and published then due = patience_due(k, s[4], s[7]) end
  if version >= tonumber(s[1]) then return 'stop.rounds: ' .. version .. ' versions are published' end
  if s[2] and tonumber(s[6] or '0') >= tonumber(s[2]) then
    return 'stop.updates: ' .. s[6] .. ' updates are counted'
  end
  local name, mode, value = string.match(s[3] or '', '^([^|]*)|([^|]*)|(.*)$')
  local x = name and metric_of(s[7], name)
  if x and ((mode == 'max' and x >= tonumber(value)) or (mode == 'min' and x <= tonumber(value))) then
    return string.format('stop.target: %s is %.6g at version %d', name, x, s[5])
  end
  return due
end

-- The job is over. What open rounds and buffers hold counts in no version: said of each.
local function job_over(k, state, reason)
  local j = redis.call('HMGET', k[1], 'round', 'pubround')
  for n = tonumber(j[2] or '0') + 1, tonumber(j[1]) do
    local r = redis.call('HMGET', prefix(k[1]) .. 'r:' .. n, 'state', 'acc')
    if (r[1] == 'open' or r[1] == 'closing') and tonumber(r[2]) > 0 then
      event(k[1], 't', 'round.abandoned', 'n', n, 'acc', r[2], 'why', 'job-' .. state)
    end
  end
  redis.call('HSET', k[1], 'state', state, 'reason', reason)
  redis.call('HDEL', k[1], 'drain', 'drainwhy', 'stopwhy')
  redis.call('DEL', prefix(k[1]) .. 'up')
  event(k[1], 't', 'job.' .. state, 'reason', reason)
  wake(k[1], 'job')
end

-- Nobody is selected from now on; the rest is drain_step. ARGV token final reason -> OK | SAME | STATE s | FENCED | NOJOB
local function job_drain(k, a)
  local s = redis.call('HMGET', k[1], 'state', 'drain')
  if not s[1] then return {'NOJOB'} end
  if not fence(k[1], a[1]) then return {'FENCED'} end
  if s[1] == 'created' then job_over(k, 'stopped', a[3]); return {'OK'} end
  if s[1] ~= 'running' and s[1] ~= 'paused' then return {'STATE', s[1]} end
  if s[2] then return {'SAME'} end
  redis.call('HSET', k[1], 'state', 'running', 'drain', a[2], 'drainwhy', a[3])
  event(k[1], 't', 'job.draining', 'reason', a[3])
  wake(k[1], 'job')
  return {'OK'}
end

-- Ends the open round of a job that drains once nobody is out any more, or its deadline has come; the job, when nothing is left.
-- ARGV token -> OK (it is over) | EARLY ms | closing acc | NOOP state | FENCED | NOJOB
local function drain_step(k, a)
  local s = redis.call('HMGET', k[1], 'state', 'drain', 'drainwhy', 'round', 'pubround')
  if not s[1] then return {'NOJOB'} end
  if not fence(k[1], a[1]) then return {'FENCED'} end
  if s[1] ~= 'running' or not s[2] then return {'NOOP', s[1]} end
  local p, work, t = prefix(k[1]), tonumber(s[5]) + 1, now()
  local r = p .. 'r:' .. work
  local v = redis.call('HMGET', r, 'state', 'acc', 'deadline')
  if work > tonumber(s[4]) then job_over(k, s[2], s[3]); return {'OK'} end
  if v[1] ~= 'open' then return {'NOOP', v[1] or 'none'} end
  local out = redis.call('ZCOUNT', r .. ':sel', '(' .. t, '(+inf') + redis.call('ZCOUNT', p .. 'infl', '(' .. t, '+inf')
  if out > 0 and t < tonumber(v[3]) then return {'EARLY', v[3]} end
  if tonumber(v[2]) == 0 then job_over(k, s[2], s[3]); return {'OK'} end
  redis.call('HSET', r, 'state', 'closing', 'closed', t, 'why', 'drain')
  memory.close(k, r, work, t)
  event(k[1], 't', 'round.closing', 'n', work, 'acc', v[2], 'why', 'drain')
  wake(k[1], 'close')
  return {'closing', tonumber(v[2])}
end

redis.register_function('trib_job_drain', job_drain)
redis.register_function('trib_drain_step', drain_step)
