-- SPDX-License-Identifier: Apache-2.0
-- ---- asynchronous jobs (FedBuff; Papaya): a buffer of K updates is a round; the next one is opened by the
-- commit that fills it, so that no client ever waits for an aggregation ----

-- With a clock the deadlines are a grid: `last` is the one before, when it has passed.
local function open_buffer(k, j, n, t, last)
  local ends, dt = t + tonumber(j.deadline_ms), tonumber(j.deadline_ms)
  if j.atrig == 'clock' and last then
    ends = tonumber(last)
    if ends <= t then ends = ends + dt * (math.floor((t - ends) / dt) + 1) end
  end
  redis.call('HSET', prefix(k[1]) .. 'r:' .. n, 'state', 'open', 'base', j.version, 'goal', j.goal, 'quorum', j.quorum,
    'selmax', j.selmax, 'opened', t, 'deadline', ends, 'acc', 0, 'inflight', 0, 'selected', 0,
    'wsum', 0, 'wraw', 0)
  redis.call('HSET', k[1], 'round', n)
  local old = n - KEEP_ROUNDS
  if old > 0 then
    local gone = prefix(k[1]) .. 'r:' .. old
    redis.call('UNLINK', gone .. ':upd', gone .. ':met', gone .. ':late')
  end
  redis.call('DEL', prefix(k[1]) .. 'r:' .. (n - ROUNDS_MAX))
  event(k[1], 't', 'round.open', 'n', n, 'base', j.version)
end

-- A round or buffer has what it wanted.
local function close_full(k, j, n, acc, t)
  local r = prefix(k[1]) .. 'r:' .. n
  redis.call('HSET', r, 'state', 'closing', 'closed', t, 'why', 'goal')
  memory.close(k, r, n, t)
  event(k[1], 't', j.mode == 'async' and 'buffer.flush' or 'round.closing', 'n', n, 'acc', acc, 'why', 'goal')
  if j.mode == 'async' then open_buffer(k, j, tonumber(n) + 1, t, redis.call('HGET', r, 'deadline')) end
  wake(k[1], 'close')
end

local function acheckin(k, a, j)
  local p, t = prefix(k[1]), now()
  if not redis.call('HGET', p .. 'r:' .. j.round, 'state') then return {'WAIT', 'noround'} end
  local ends, id = t + tonumber(j.lease_ms), a[2]
  local base = j.version
  local u = redis.call('HGET', p .. 'aupd', a[1])
  if u then
    local s, had, exp, from = string.match(u, '^(%a)|([^|]*)|(%d+)|(%d+)')
    if s == 'C' and (exp == j.version or had == a[2] or (j.mem and from == j.round)) then      -- (client, base) once
      return told_to_wait(k, p .. 'r:' .. j.round, 'reported', t)
    end
    if s == 'R' and tonumber(exp) > t then id, base = had, from end            -- an upload is under way
  end
  if j.mem and not memory.room(k, j, a[1]) then return told_to_wait(k, p .. 'r:' .. j.round, 'memory-full', t) end
  redis.call('ZREMRANGEBYSCORE', p .. 'infl', '-inf', t)
  if not redis.call('ZSCORE', p .. 'infl', a[1]) and redis.call('ZCARD', p .. 'infl') >= tonumber(j.selmax) then
    return told_to_wait(k, p .. 'r:' .. j.round, 'full', t)
  end
  local over = not redis.call('ZSCORE', p .. 'infl', a[1]) and quota_place(j, t)
  if over then return over end
  redis.call('ZADD', p .. 'infl', ends, a[1])
  if u and string.sub(u, 1, 1) == 'C' then last_put(k, a[1], u) end
  if j.mem then redis.call('HSETNX', p .. 'mem', a[1], '') end
  if id == a[2] then redis.call('HSET', p .. 'aupd', a[1], 'S|' .. id .. '|' .. ends .. '|' .. base .. '|' .. t) end
  redis.call('HINCRBY', p .. 'r:' .. j.round, 'selected', 1)
  return {'SELECTED', j.round, base, tostring(ends), id, ends}
end

local function areserve(k, a, j)
  local p, t = prefix(k[1]), now()
  local u = redis.call('HGET', p .. 'aupd', a[1])
  local c = committed(u or '')
  if c and c.id == a[2] and c.place == QUARANTINED then return {'CLOSED', 'quarantined'} end
  if c and c.id == a[2] then return {'DUP', c.ms, c.digest, c.weight, c.counted, c.n} end
  if c or not u then
    local old = j.switched and redis.call('HGET', p .. 'r:' .. a[3] .. ':upd', a[1])
    local oid, ms, dg, w, place = string.match(old or '', '^C|([^|]*)|(%d+)|([^|]*)|([^|]*)|(.*)$')
    if oid == a[2] and place == QUARANTINED then return {'CLOSED', 'quarantined'} end
    if oid == a[2] then return {'DUP', ms, dg, w, w, a[3]} end
    return {'NOTSEL'}
  end
  if j.state ~= 'running' and j.state ~= 'paused' then return {'CLOSED', j.state} end
  local s, id, _, base, since = string.match(u, '^(%a)|([^|]*)|(%d+)|(%d+)|?(%d*)$')
  if id ~= a[2] then return {'NOTSEL'} end
  local tau = tonumber(j.version) - tonumber(base)
  if tau > tonumber(j.amax) then
    redis.call('HDEL', p .. 'aupd', a[1])
    redis.call('ZREM', p .. 'infl', a[1])            -- its place is somebody else's at once
    return {'STALE', tau}
  end
  local ends = t + upload_lease(a[4], j.lease_ms)
  redis.call('HSET', p .. 'aupd', a[1], 'R|' .. id .. '|' .. ends .. '|' .. base .. '|' .. since)
  redis.call('ZADD', p .. 'infl', ends, a[1])
  return norms.reserved(j, base)
end

-- Counted in a round that was over before the job became asynchronous.
local function of_sync_round(p, a)
  local u = redis.call('HGET', p .. 'r:' .. a[3] .. ':upd', a[1])
  local id, ms, dg, w, place = string.match(u or '', '^C|([^|]*)|(%d+)|([^|]*)|([^|]*)|(.*)$')
  if id ~= a[2] then return nil end
  if place == QUARANTINED then return {'CLOSED', 'quarantined'} end
  if dg ~= a[4] or w ~= a[5] then return {'CONFLICT'} end
  return {place == a[6] and 'SAME' or 'DUP', ms, dg, w, w, a[3]}
end

-- The client has checked in again since, but this very slot counts in a buffer that is not over: SAME; else NORES
local function acounted(p, a, j)
  local v, done, last = tonumber(j.version), tonumber(j.pubround), tonumber(j.round)
  local far = math.max(tonumber(j.amax), tonumber(j.ascan or '0'))
  local first = math.max(0, v - far - (last - done))
  for n = done + 1, last do
    local upd, fields = p .. 'r:' .. n .. ':upd', {}
    if v - first > 64 then                                  -- max_staleness may be a million, a buffer is what it holds
      local all = redis.call('HKEYS', upd)
      for i = 1, #all do
        if string.sub(all[i], 1, #a[1] + 1) == a[1] .. '@' then fields[#fields + 1] = all[i] end
      end
    else
      for base = first, v do fields[#fields + 1] = a[1] .. '@' .. base end
    end
    for i = 1, #fields do
      local u = redis.call('HGET', upd, fields[i])
      local id, ms, dg, counted, place = string.match(u or '', '^C|([^|]*)|(%d+)|([^|]*)|([^|]*)|(.*)$')
      if id == a[2] and place == a[6] then return {'SAME', ms, dg, a[5], counted, tostring(n)} end
    end
  end
  return j.switched and of_sync_round(p, a) or {'NORES'}
end

local function acommit(k, a, j)
  local p, t = prefix(k[1]), now()
  local u = redis.call('HGET', p .. 'aupd', a[1])
  if not u then return acounted(p, a, j) end
  local c = committed(u)
  if c then
    if c.id == a[2] and c.place == QUARANTINED then return {'CLOSED', 'quarantined'} end
    if c.id == a[2] and c.digest == a[4] and c.weight == a[5] then
      return {c.place == a[6] and 'SAME' or 'DUP', c.ms, c.digest, c.weight, c.counted, c.n}
    end
    return c.id == a[2] and {'CONFLICT'} or acounted(p, a, j)
  end
  local s, id, _, base, since = string.match(u, '^(%a)|([^|]*)|(%d+)|(%d+)|?(%d*)$')
  if id ~= a[2] then return acounted(p, a, j) end
  if place_gone(k, a[6], a[7]) then return {'NORES'} end
  if j.state ~= 'running' and j.state ~= 'paused' then return {'CLOSED', j.state} end
  local tau = tonumber(j.version) - tonumber(base)
  if tau > tonumber(j.amax) then
    redis.call('HDEL', p .. 'aupd', a[1])
    redis.call('ZREM', p .. 'infl', a[1])
    event(k[1], 't', 'update.rejected', 'update', id, 'why', 'stale', 'staleness', tau)
    return {'STALE', tau}
  end
  local n = j.round
  local r = p .. 'r:' .. n
  if redis.call('HGET', r, 'state') ~= 'open' then      -- carried into rounds (35_policy.lua), and late
    if n ~= '0' then redis.call('HINCRBY', r, 'late', 1) end
    return {'CLOSED', 'none'}
  end
  local counted = discounted(j, a[5], tau, t - (tonumber(since) or t))
  redis.call('HSET', r .. ':upd', a[1] .. '@' .. base, 'C|' .. id .. '|' .. t .. '|' .. a[4] .. '|' .. counted .. '|' .. a[6])
  redis.call('HSET', p .. 'aupd', a[1],
    'C|' .. id .. '|' .. base .. '|' .. n .. '|' .. t .. '|' .. a[4] .. '|' .. a[5] .. '|' .. counted .. '|' .. a[6])
  memory.put(k, j, a[1], n, base, id, t, a[4], counted, a[6])
  redis.call('ZREM', p .. 'infl', a[1])
  redis.call('HINCRBY', r, 'wsum', counted)
  redis.call('HINCRBY', r, 'wraw', a[5])
  if counted ~= a[5] then redis.call('HSET', r .. ':late', a[1] .. '@' .. base, n .. '|' .. id .. '|' .. a[5]) end
  redis.call('HINCRBY', r, 'staleness', tau)
  redis.call('HINCRBY', r, 'n:' .. a[7], 1)
  redis.call('HINCRBY', r, 'w:' .. a[7], counted)
  metrics_add(r, id, a[5], a[8])
  norms.add(j, r, id, counted, a[9])
  local acc = redis.call('HINCRBY', r, 'acc', 1)
  event(k[1], 't', 'update.accepted', 'n', n, 'update', id, 'staleness', tau)
  if acc < tonumber(redis.call('HGET', r, 'goal')) or redis.call('HEXISTS', r, 'losing') == 1 then
    return {'OK', acc, t, counted, n}
  end
  close_full(k, j, n, acc, t)
  return {'CLOSE', acc, t, counted, n}
end

-- The flush time-out: what is there is aggregated; an empty buffer waits on.
local function aflush(k, a, j, r, force)
  local acc, t = tonumber(r[3]), now()
  if force == '0' and t < tonumber(r[2]) then return {'EARLY', r[2]} end
  local base = prefix(k[1]) .. 'r:' .. a[2]
  if redis.call('HEXISTS', base, 'losing') == 1 then return {'EARLY', string.format('%d', t + 200)} end
  if acc == 0 then
    if force ~= '0' then return {'QUORUM', 0} end
    local dt, ends = tonumber(j.deadline_ms), tonumber(r[2])
    ends = j.atrig == 'clock' and ends + dt * (math.floor((t - ends) / dt) + 1) or t + dt
    redis.call('HSET', base, 'deadline', ends)
    return {'EARLY', tostring(ends)}
  end
  redis.call('HSET', base, 'state', 'closing', 'closed', t, 'why', force == '0' and 'deadline' or 'operator')
  memory.close(k, base, a[2], t)
  event(k[1], 't', 'buffer.flush', 'n', a[2], 'acc', acc, 'why', 'timeout')
  if a[2] == j.round then open_buffer(k, j, tonumber(a[2]) + 1, t, r[2]) end
  wake(k[1], 'close')
  return {'closing', acc}
end
