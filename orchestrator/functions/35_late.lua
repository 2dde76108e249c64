-- SPDX-License-Identifier: Apache-2.0
-- ---- updates of a synchronous round that come after it closed (`sync.late: next`): carried into the round that is
-- open, with a staleness weight. A client counts once in any round: what it was selected for goes before what it
-- carries, and once carried it is a client that has reported. ----

local function goal_met(k, j, n, acc, t)
  local r = redis.call('HMGET', prefix(k[1]) .. 'r:' .. n, 'goal', 'losing')
  if acc < tonumber(r[1]) or r[2] then return 'OK' end
  close_full(k, j, n, acc, t)
  return 'CLOSE'
end

-- The record of what was carried: 'L|id|m|weight' of the old round, the 'C' of round m.
local function late_record(k, client, rest)
  local m, raw = string.match(rest, '^(%d+)|(%d+)$')
  local u = redis.call('HGET', prefix(k[1]) .. 'r:' .. m .. ':upd', client)
  local ms, dg, w, place = string.match(u or '', '^C|[^|]*|(%d+)|([^|]*)|([^|]*)|(.*)$')
  return {m = m, raw = raw, ms = ms, digest = dg, counted = w, place = place}
end

local function late_dup(k, a, id, rest)
  local c = late_record(k, a[1], rest)
  if id ~= a[2] then return {'NOTSEL'} end
  if c.place == QUARANTINED then return {'CLOSED', 'quarantined'} end
  if not c.ms then return {'CLOSED', 'published'} end       -- so old that its round is forgotten
  return {'DUP', c.ms, c.digest, c.raw, c.counted, c.m}
end

local function late_again(k, a, id, rest)
  local c = late_record(k, a[1], rest)
  if id ~= a[2] then return {'NORES'} end
  if c.place == QUARANTINED then return {'CLOSED', 'quarantined'} end
  if not c.ms then return {'CLOSED', 'published'} end
  if c.digest ~= a[4] or c.raw ~= a[5] then return {'CONFLICT'} end
  return {c.place == a[6] and 'SAME' or 'DUP', c.ms, c.digest, c.raw, c.counted, c.m}
end

-- Which round it would go to: {m, tau} or an answer. No round open is no answer yet: m is nil.
local function late_target(k, a, j, base)
  local r = prefix(k[1]) .. 'r:' .. j.round
  local now_ = redis.call('HMGET', r, 'state', 'base')
  local open = now_[1] == 'open'
  local tau = tonumber(open and now_[2] or j.version) - tonumber(base)
  if tau > tonumber(j.amax) then return nil, {'STALE', tau} end
  if not open then return {tau = tau} end
  if redis.call('HEXISTS', r .. ':upd', a[1]) == 1 then return nil, {'CLOSED', 'superseded'} end
  return {m = j.round, tau = tau, key = r}
end

local function late_reserve(k, a, j, u, r)
  local s, id = string.match(u, '^(%a)|([^|]*)|')
  if j.state ~= 'running' and j.state ~= 'paused' then return {'CLOSED', j.state} end
  if id ~= a[2] or not r[2] then return {'NOTSEL'} end
  local target, answer = late_target(k, a, j, r[2])
  if not target and j.bkind and not string.find(u, '|0$') then
    local base = prefix(k[1]) .. 'r:' .. a[3]
    redis.call('HSET', base .. ':upd', a[1], s .. '|' .. id .. '|0')
    backup.after(k, j, base, now())
  end
  return target and norms.reserved(j, r[2]) or answer
end

local function late_commit(k, a, j, s, id)
  local base, t = prefix(k[1]) .. 'r:' .. a[3], now()
  local from = redis.call('HGET', base, 'base')
  if not from then return {'CLOSED', 'none'} end
  local target, answer = late_target(k, a, j, from)
  if target and not target.m then return {'LATER'} end
  if s == 'R' then redis.call('HINCRBY', base, 'inflight', -1) end
  if not target then
    if not string.find(redis.call('HGET', base .. ':upd', a[1]), '|0$') then backup.after(k, j, base, t) end
    redis.call('HSET', base .. ':upd', a[1], 'S|' .. id .. '|0')
    redis.call('HINCRBY', base, 'late', 1)
    event(k[1], 't', 'update.rejected', 'n', a[3], 'update', id, 'why', answer[1] == 'STALE' and 'stale' or 'superseded')
    return answer
  end
  local m, r = target.m, target.key
  local counted = discounted(j, a[5], target.tau, 0)
  redis.call('HSET', r .. ':upd', a[1], 'C|' .. id .. '|' .. t .. '|' .. a[4] .. '|' .. counted .. '|' .. a[6])
  redis.call('HSET', r .. ':late', a[1], a[3] .. '|' .. id .. '|' .. a[5])
  redis.call('HSET', base .. ':upd', a[1], 'L|' .. id .. '|' .. m .. '|' .. a[5])
  redis.call('HINCRBY', r, 'wsum', counted)
  redis.call('HINCRBY', r, 'wraw', a[5])
  redis.call('HINCRBY', r, 'carried', 1)
  redis.call('HINCRBY', r, 'staleness', target.tau)
  redis.call('HINCRBY', r, 'n:' .. a[7], 1)
  redis.call('HINCRBY', r, 'w:' .. a[7], counted)
  last_counted(k, a[1], id, m, t, a[4], a[5], counted, a[6])
  metrics_add(r, id, a[5], a[8])
  norms.add(j, r, id, counted, a[9])
  backup.after(k, j, base, t)
  local n = redis.call('HINCRBY', r, 'acc', 1)
  backup.arrived(k, j, r, n, t)
  event(k[1], 't', 'update.accepted', 'n', m, 'update', id, 'staleness', target.tau)
  return {goal_met(k, j, m, n, t), n, t, counted, m}
end
