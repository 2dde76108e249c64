-- SPDX-License-Identifier: Apache-2.0
-- ---- policies are data: a running job's spec is changed, and with it perhaps its mode ----
--
-- What is under way when the mode changes:
--   sync -> async   the open round becomes the open buffer, with what it has counted. Selected and reserved places
--                   (of the open round, or of the one that is closing) become places of the buffer, base: the round's.
--   async -> sync   the open buffer becomes the open round, with what it has counted. Clients that are out keep their
--                   places in :aupd: they count in the round that is open when they commit, by staleness. Buffers that
--                   are full are aggregated in their order first; nobody is selected until that is done.
-- (client, base) counts once in either mode and across changes.

local function pin_denominators(k, was)
  local p, v = prefix(k[1]), (was.adenom or 'weight_sum') .. '|' .. (was.apop or '') .. '|' .. (was.anorm or '')
  for n = tonumber(was.pubround) + 1, tonumber(was.round) do
    if redis.call('HGET', p .. 'r:' .. n, 'state') == 'closing' then
      redis.call('HSETNX', p .. 'r:' .. n, 'denom', v)
    end
  end
end

-- Places and counted updates of a round, to be those of a buffer.
local function round_to_buffer(k, n, t)
  local p = prefix(k[1])
  local r = p .. 'r:' .. n
  local base, all = redis.call('HGET', r, 'base'), redis.call('HGETALL', r .. ':upd')
  for i = 1, #all, 2 do
    local client, u = all[i], all[i + 1]
    local id, ms, dg, w, place = string.match(u, '^C|([^|]*)|(%d+)|([^|]*)|([^|]*)|(.*)$')
    if not string.find(client, '@', 1, true) then
      redis.call('HDEL', r .. ':upd', client)
      if id then
        local late = redis.call('HGET', r .. ':late', client)
        local raw = string.match(late or '', '|(%d+)$') or w
        if late then
          redis.call('HDEL', r .. ':late', client)
          redis.call('HSET', r .. ':late', client .. '@' .. base, late)
        end
        redis.call('HSET', r .. ':upd', client .. '@' .. base, u)
        redis.call('HSET', p .. 'aupd', client,
          'C|' .. id .. '|' .. base .. '|' .. n .. '|' .. ms .. '|' .. dg .. '|' .. raw .. '|' .. w .. '|' .. place)
      else
        local s, sid, exp = string.match(u, '^(%a)|([^|]*)|(%d+)')
        redis.call('HSET', p .. 'aupd', client, s .. '|' .. sid .. '|' .. exp .. '|' .. base .. '|' .. t)
        if tonumber(exp) > t then redis.call('ZADD', p .. 'infl', exp, client) end
      end
    end
  end
  redis.call('DEL', r .. ':sel')
  local all_of_it = redis.call('HGETALL', r)                 -- rows have new names: who goes through them begins anew
  for i = 1, #all_of_it, 2 do
    if string.sub(all_of_it[i], 1, 2) == 'l:' then
      local l = cjson.decode(all_of_it[i + 1])
      l.c = '0'
      redis.call('HSET', r, all_of_it[i], cjson.encode(l))
    end
  end
  redis.call('HSETNX', r, 'wraw', redis.call('HGET', r, 'wsum') or '0')
  redis.call('HSET', r, 'inflight', 0)
end

-- The open round follows the new numbers.
local function retune(k, j, was, t)
  local n = j.round
  local r = prefix(k[1]) .. 'r:' .. n
  local now_is = redis.call('HMGET', r, 'state', 'deadline', 'acc')
  if now_is[1] ~= 'open' then return end
  local ends = tonumber(now_is[2]) - tonumber(was.deadline_ms) + tonumber(j.deadline_ms)
  if was.mode ~= j.mode then ends = t + tonumber(j.deadline_ms) end
  local goal = redis.call('HGET', r, 'goal')
  if was.bkind ~= j.bkind or not j.bkind or was.selmax ~= j.selmax or was.quorum ~= j.quorum then
    goal = backup.set(k, j, r)
  end
  redis.call('HSET', r, 'goal', goal, 'quorum', j.quorum, 'selmax', j.selmax, 'deadline', math.max(t, ends))
  local acc = tonumber(now_is[3])
  if acc >= tonumber(goal) and redis.call('HEXISTS', r, 'losing') == 0 then close_full(k, j, n, acc, t) end
end

-- ARGV token generation spec_json goal quorum selmax deadline_ms lease_ms stop_rounds
-- -> OK generation | CONFLICT generation | STATE s | FENCED | NOJOB
local function job_patch(k, a)
  local g = redis.call('HMGET', k[1], 'state', 'gen', 'spec')
  if not g[1] then return {'NOJOB'} end
  if not fence(k[1], a[1]) then return {'FENCED'} end
  local gen = tonumber(g[2] or '1')
  if gen == tonumber(a[2]) + 1 and g[3] == a[3] then return {'OK', gen} end       -- sent again
  if gen ~= tonumber(a[2]) then return {'CONFLICT', gen} end
  if not ok_next[g[1]] then return {'STATE', g[1]} end
  local was, t = job_of(k), now()
  local d = redis.call('HMGET', k[1], 'apop', 'anorm')
  was.apop, was.anorm = d[1] or nil, d[2] or nil
  redis.call('HSET', k[1], 'gen', gen + 1, 'patched', 1, 'spec', a[3], 'goal', a[4], 'quorum', a[5], 'selmax', a[6],
    'deadline_ms', a[7], 'lease_ms', a[8], 'stop_rounds', a[9],
    'ascan', math.max(tonumber(was.amax or '0'), tonumber(was.ascan or '0')))
  job_policy(k, a[3], last_event(k))
  local j = job_of(k)
  d = redis.call('HMGET', k[1], 'apop', 'anorm')
  if was.adenom ~= j.adenom or was.apop ~= (d[1] or nil) or was.anorm ~= (d[2] or nil) then pin_denominators(k, was) end
  if was.mode ~= j.mode then
    redis.call('HSET', k[1], 'switched', 1)
    if j.mode == 'async' and tonumber(j.round) > 0 and tonumber(j.pubround) < tonumber(j.round) then
      round_to_buffer(k, j.round, t)
      if redis.call('HGET', prefix(k[1]) .. 'r:' .. j.round, 'state') == 'closing' then
        open_buffer(k, j, tonumber(j.round) + 1, t)
        j.round = tostring(tonumber(j.round) + 1)
      end
    end
  end
  retune(k, j, was, t)
  if j.version ~= '-1' then              -- a rule that is met already: what is under way is ended in order
    local due = stop_due(k, false)
    redis.call('HDEL', k[1], 'stopwhy')
    if due and j.state == 'paused' then
      redis.call('HSET', k[1], 'stopwhy', due)
    elseif due and not j.drain and j.state == 'running' then
      redis.call('HSET', k[1], 'drain', 'finished', 'drainwhy', due)
      event(k[1], 't', 'job.draining', 'reason', due)
    end
  end
  event(k[1], 't', 'job.patched', 'gen', gen + 1, 'mode', j.mode or 'sync')
  wake(k[1], 'job')
  return {'OK', gen + 1}
end

-- A place that a client got while the job was asynchronous, and this update id is its.
local function carried(k, client, id)
  local u = redis.call('HGET', prefix(k[1]) .. 'aupd', client)
  return u and string.match(u, '^%a|([^|]*)|') == id
end

-- A client that was out when the job became synchronous asks again: what it is told, or nil (it is as any other).
local function carried_checkin(k, a, j, r)
  local p, t = prefix(k[1]), now()
  if tonumber(j.pubround) + 1 < tonumber(j.round) then return {'WAIT', 'closing'} end
  local s, id, exp, base = string.match(redis.call('HGET', p .. 'aupd', a[1]) or '', '^(%a)|([^|]*)|(%d+)|(%d+)')
  if s == 'C' then return exp == r[3] and {'WAIT', 'reported'} or nil end
  if s == 'R' and tonumber(exp) > t then
    return {'SELECTED', j.round, base, r[4], id, t + tonumber(j.lease_ms)}
  end
  if s then
    redis.call('HDEL', p .. 'aupd', a[1])
    redis.call('ZREM', p .. 'infl', a[1])
  end
  return nil
end

redis.register_function('trib_job_patch', job_patch)
