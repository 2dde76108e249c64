-- SPDX-License-Identifier: Apache-2.0
-- ARGV token n base goal quorum selmax deadline_ms -> OK deadline | EXISTS | STATE s | ORDER | FENCED
local function round_open(k, a)
  local j = redis.call('HMGET', k[1], 'state', 'round', 'version')
  if not j[1] then return {'NOJOB'} end
  if not fence(k[1], a[1]) then return {'FENCED'} end
  if j[1] ~= 'running' then return {'STATE', j[1]} end
  local ends = redis.call('HMGET', k[1], 'drain', 'stopwhy')
  if ends[1] or ends[2] then return {'STATE', 'draining'} end
  local r = prefix(k[1]) .. 'r:' .. a[2]
  if redis.call('EXISTS', r) == 1 then return {'EXISTS'} end
  if tonumber(a[2]) ~= tonumber(j[2]) + 1 or a[3] ~= j[3] then return {'ORDER', j[2], j[3]} end
  if tonumber(j[2]) > 0 then
    local last = redis.call('HGET', prefix(k[1]) .. 'r:' .. j[2], 'state')
    if last ~= 'published' and last ~= 'failed' then return {'ORDER', j[2], last or ''} end
  end
  local t = now()
  if redis.call('HEXISTS', k[1], 'patched') == 1 then       -- the caller may not have heard of it
    local v = redis.call('HMGET', k[1], 'goal', 'quorum', 'selmax', 'deadline_ms')
    a[4], a[5], a[6], a[7] = v[1], v[2], v[3], v[4]
  end
  local goal = backup.set(k, {bkind = redis.call('HGET', k[1], 'bkind') or nil, goal = a[4], quorum = a[5], selmax = a[6]}, r)
  redis.call('HSET', r, 'state', 'open', 'base', a[3], 'goal', goal, 'quorum', a[5], 'selmax', a[6],
    'opened', t, 'deadline', t + tonumber(a[7]), 'acc', 0, 'inflight', 0, 'selected', 0, 'wsum', 0, 'wraw', 0)
  redis.call('HSET', k[1], 'round', a[2])
  local old = tonumber(a[2]) - KEEP_ROUNDS
  if old > 0 then
    local o = prefix(k[1]) .. 'r:' .. old
    redis.call('UNLINK', o .. ':upd', o .. ':sel', o .. ':met', o .. ':late')
  end
  redis.call('DEL', prefix(k[1]) .. 'r:' .. (tonumber(a[2]) - ROUNDS_MAX))
  event(k[1], 't', 'round.open', 'n', a[2], 'base', a[3])
  wake(k[1], 'round')
  return {'OK', t + tonumber(a[7])}
end

-- In a job that drains only those who have a place are answered as ever.
local function holds_place(k, j, client)
  local p = prefix(k[1])
  local a, s = redis.call('HGET', p .. 'aupd', client), redis.call('HGET', p .. 'r:' .. j.round .. ':upd', client)
  local exp = string.match(a or '', '^[SR]|[^|]*|(%d+)')
  return (exp and tonumber(exp) > now()) or (s and string.sub(s, 1, 1) ~= 'C')
end

-- ARGV client update_id_candidate [labels, hash of its token, node of the gateway] -> SELECTED round base deadline update_id lease_end [url of the planned node]
--   | WAIT why (reported full not-sampled noround closing) [ms left] | INELIGIBLE why | QUOTA text | DONE state | PAUSED | NOMODEL | NOJOB
local function checkin(k, a)
  local j = job_of(k)
  if not j.state then return {'NOJOB'} end
  if j.state == 'finished' or j.state == 'stopped' or j.state == 'failed' then return {'DONE', j.state} end
  if j.version == '-1' then return {'NOMODEL'} end
  if j.state == 'paused' then return {'PAUSED'} end
  if j.drain and not holds_place(k, j, a[1]) then return {'WAIT', 'draining'} end
  local fails = j.want and not holds_place(k, j, a[1]) and selector_fails(k[1], j.want, a[3], a[4])
  if fails then return {'INELIGIBLE', fails} end
  if j.mode == 'async' then return acheckin(k, a, j) end
  if j.sample and string.sub(j.sample, 1, 1) == 'c' then known_client(k, a[1]) end
  local base = prefix(k[1]) .. 'r:' .. j.round
  local r = redis.call('HMGET', base, 'state', 'selmax', 'base', 'deadline')
  if r[1] ~= 'open' then return {'WAIT', r[1] and 'closing' or 'noround'} end
  local told = j.switched and carried_checkin(k, a, j, r)
  if told then return told end
  local t, sel, upd = now(), base .. ':sel', base .. ':upd'
  local ends = t + tonumber(j.lease_ms)
  local u = redis.call('HGET', upd, a[1])
  if u then
    local st, id = string.match(u, '^(%a)|([^|]*)|')
    if st == 'C' then return told_to_wait(k, base, 'reported', t) end       -- carried into this one: too
    local over = tonumber(redis.call('ZSCORE', sel, a[1]) or '0') <= t and quota_place(j, t)
    if over then return over end
    redis.call('ZADD', sel, ends, a[1])
    if st == 'S' then redis.call('HSET', upd, a[1], 'S|' .. id .. '|' .. ends) end
    return {'SELECTED', j.round, r[3], r[4], id, ends}
  end
  if j.sample and not sampled(k, j, base, a[1]) then return told_to_wait(k, base, 'not-sampled', t) end
  local over = quota_place(j, t)
  if over then return over end
  if redis.call('ZCARD', sel) >= tonumber(r[2]) then
    local old = redis.call('ZRANGEBYSCORE', sel, '-inf', t, 'LIMIT', 0, 8)
    local freed = false
    for i = 1, #old do
      local v = redis.call('HGET', upd, old[i])
      local st, _, exp = string.match(v or '', '^(%a)|([^|]*)|(%d+)')
      if st == 'C' then
        redis.call('ZADD', sel, '+inf', old[i])           -- reported: keeps its place for good
      elseif not freed and (st ~= 'R' or tonumber(exp) <= t) then
        redis.call('ZREM', sel, old[i])
        if v then redis.call('HDEL', upd, old[i]) end
        if st == 'R' then redis.call('HINCRBY', base, 'inflight', -1) end
        redis.call('HINCRBY', base, 'expired', 1)
        freed = true
      end
    end
    if not freed then return told_to_wait(k, base, 'full', t) end
  end
  redis.call('ZADD', sel, ends, a[1])
  redis.call('HSET', upd, a[1], 'S|' .. a[2] .. '|' .. ends)
  redis.call('HINCRBY', base, 'selected', 1)
  return {'SELECTED', j.round, r[3], r[4], a[2], ends}
end

-- The round is over. Who was selected in it is seen once (18_backup.lua).
local function came_after(k, a, j, base, u, state)
  local s, id, exp = string.match(u or '', '^(%a)|([^|]*)|(%d+)')
  if j.bkind and id == a[2] and exp ~= '0' then
    redis.call('HSET', base .. ':upd', a[1], s .. '|' .. id .. '|0')
    backup.after(k, j, base, now())
  end
  return {'CLOSED', state or 'none'}
end

-- Before a body byte is read. ARGV client update_id round lease_ms [metrics: of one that counts already]
-- -> OK base ['norms': the squared norm is wanted] | CLOSED state | NOTSEL | STALE versions | DUP ms digest weight counted round
-- | QUOTA text | NOJOB
local function reserve(k, a)
  local j = job_of(k)
  local st = j.state
  if not st then return {'NOJOB'} end
  if j.mode == 'async' or (j.switched and carried(k, a[1], a[2])) then return areserve(k, a, j) end
  local base = prefix(k[1]) .. 'r:' .. a[3]
  local upd = base .. ':upd'
  local u = redis.call('HGET', upd, a[1])
  if u then
    local s, id, rest = string.match(u, '^(%a)|([^|]*)|(.*)$')
    if s == 'C' then
      if id ~= a[2] then return {'NOTSEL'} end
      local ms, dg, w, place = string.match(rest, '^(%d+)|([^|]*)|([^|]*)|(.*)$')
      if place == QUARANTINED then return {'CLOSED', 'quarantined'} end
      return {'DUP', ms, dg, w, w, a[3]}
    end
    if s == 'L' then return late_dup(k, a, id, rest) end
  end
  local r = redis.call('HMGET', base, 'state', 'base')
  if r[1] ~= 'open' and j.late and u then return late_reserve(k, a, j, u, r) end
  if r[1] ~= 'open' then return came_after(k, a, j, base, u, r[1]) end
  if st ~= 'running' and st ~= 'paused' then return {'CLOSED', st} end
  if not u then return {'NOTSEL'} end
  local s, id = string.match(u, '^(%a)|([^|]*)|')
  if id ~= a[2] then return {'NOTSEL'} end
  if s == 'S' then redis.call('HINCRBY', base, 'inflight', 1) end
  local ends = now() + upload_lease(a[4], j.lease_ms)
  redis.call('HSET', upd, a[1], 'R|' .. id .. '|' .. ends)
  redis.call('ZADD', base .. ':sel', ends, a[1])
  return norms.reserved(j, r[2])
end
-- The upload ended without a commit (client gone, refused): back to selected. ARGV client update_id round
local function release(k, a)
  local au = redis.call('HGET', prefix(k[1]) .. 'aupd', a[1])
  if au then
    local as, aid, rest = string.match(au, '^(%a)|([^|]*)|(.*)$')
    if as == 'R' and aid == a[2] then
      redis.call('HSET', prefix(k[1]) .. 'aupd', a[1], 'S|' .. aid .. '|' .. rest)
      return {'OK'}
    end
  end
  local base = prefix(k[1]) .. 'r:' .. a[3]
  local u = redis.call('HGET', base .. ':upd', a[1])
  local s, id, exp = string.match(u or '', '^(%a)|([^|]*)|(%d+)')
  if s ~= 'R' or id ~= a[2] then return {'NOOP'} end
  redis.call('HSET', base .. ':upd', a[1], 'S|' .. id .. '|' .. exp)
  redis.call('HINCRBY', base, 'inflight', -1)
  return {'OK'}
end

-- After all checks. ARGV client update_id round digest weight place node [metrics: 'name=value,..'] [squared norm]
-- -> OK n ms counted round | CLOSE .. (counted: the weight that counts, staleness discounted; round: the one it
-- counts in) | LATER (late, no round is open now: ask again) | SAME, DUP ms digest weight counted round | CONFLICT
-- | CLOSED state | STALE versions | NORES | NOJOB
local function commit(k, a)
  local j = job_of(k)
  local st = j.state
  if not st then return {'NOJOB'} end
  if j.mode == 'async' or (j.switched and carried(k, a[1], a[2])) then return acommit(k, a, j) end
  local base = prefix(k[1]) .. 'r:' .. a[3]
  local upd = base .. ':upd'
  local u = redis.call('HGET', upd, a[1])
  local s, id, rest = string.match(u or '', '^(%a)|([^|]*)|(.*)$')
  if j.switched and id ~= a[2] then return acounted(prefix(k[1]), a, j) end
  if not u then return {'NORES'} end
  if s == 'C' then
    local ms, dg, w, place = string.match(rest, '^(%d+)|([^|]*)|([^|]*)|(.*)$')
    if id == a[2] and place == QUARANTINED then return {'CLOSED', 'quarantined'} end
    if id == a[2] and dg == a[4] and w == a[5] then
      -- the very slot that counted (a repeated commit), or another copy of the same upload
      return {place == a[6] and 'SAME' or 'DUP', ms, dg, w, w, a[3]}
    end
    return {'CONFLICT'}
  end
  if s == 'L' then return late_again(k, a, id, rest) end
  if id ~= a[2] then return {'NORES'} end
  if place_gone(k, a[6], a[7]) then return {'NORES'} end
  local state = redis.call('HGET', base, 'state')
  if state ~= 'open' and j.late and (st == 'running' or st == 'paused') then return late_commit(k, a, j, s, id) end
  if state ~= 'open' or (st ~= 'running' and st ~= 'paused') then
    if s == 'R' then redis.call('HINCRBY', base, 'inflight', -1) end
    redis.call('HSET', upd, a[1], 'S|' .. id .. '|0')
    redis.call('HINCRBY', base, 'late', 1)
    if state ~= 'open' and rest ~= '0' then backup.after(k, j, base, now()) end
    return {'CLOSED', state ~= 'open' and state or st}
  end
  local t = now()
  redis.call('HSET', upd, a[1], 'C|' .. id .. '|' .. t .. '|' .. a[4] .. '|' .. a[5] .. '|' .. a[6])
  redis.call('ZADD', base .. ':sel', '+inf', a[1])
  if s == 'R' then redis.call('HINCRBY', base, 'inflight', -1) end
  redis.call('HINCRBY', base, 'wsum', a[5])
  redis.call('HINCRBY', base, 'wraw', a[5])
  redis.call('HINCRBY', base, 'n:' .. a[7], 1)
  redis.call('HINCRBY', base, 'w:' .. a[7], a[5])
  last_counted(k, a[1], id, a[3], t, a[4], a[5], a[5], a[6])
  metrics_add(base, id, a[5], a[8])
  norms.add(j, base, id, a[5], a[9])
  local n = redis.call('HINCRBY', base, 'acc', 1)
  backup.arrived(k, j, base, n, t)
  event(k[1], 't', 'update.accepted', 'n', a[3], 'update', id)
  local met = goal_met(k, j, a[3], n, t)
  -- Elected now, the agents' first question about the closed round writes nothing and need not wait for the disk.
  if met == 'CLOSE' and redis.call('HEXISTS', base, 'top') == 0 then elect_top(k, base, a[7]) end
  return {met, n, t, a[5], a[3]}
end

-- ARGV token n force(0/1) -> closing acc | failed acc | EARLY deadline | NOOP state | QUORUM acc | FENCED
-- force 0: the deadline fired; 1: an operator closes (quorum needed); 2: closes with what there is (>= 1)
local function deadline(k, a)
  if redis.call('EXISTS', k[1]) == 0 then return {'NOJOB'} end
  if not fence(k[1], a[1]) then return {'FENCED'} end
  local base = prefix(k[1]) .. 'r:' .. a[2]
  local r = redis.call('HMGET', base, 'state', 'deadline', 'acc', 'quorum')
  if r[1] ~= 'open' then return {'NOOP', r[1] or 'none'} end
  local j = job_of(k)
  if j.mode == 'async' then return aflush(k, a, j, r, a[3]) end
  local acc, quorum, t = tonumber(r[3]), tonumber(r[4]), now()
  if redis.call('HEXISTS', base, 'losing') == 1 then return {'EARLY', string.format('%d', t + 200)} end
  local st, why = 'closing', 'deadline'
  if a[3] == '0' then
    if t < tonumber(r[2]) then return {'EARLY', r[2]} end
    if acc < quorum and acc > 0 and j.below ~= 'fail' then
      -- nothing accepted is thrown away: the round goes on, places that expired are given to others
      local again = t + tonumber(j.deadline_ms)
      redis.call('HSET', base, 'deadline', again)
      redis.call('HINCRBY', base, 'extended', 1)
      event(k[1], 't', 'round.extended', 'n', a[2], 'acc', acc, 'quorum', quorum)
      return {'EARLY', tostring(again)}
    end
    if acc < quorum then st = 'failed' end
  elseif acc < (a[3] == '2' and 1 or quorum) then
    return {'QUORUM', acc}
  else
    why = 'operator'
  end
  if why == 'deadline' then backup.ended(k, j, base, acc, t) end
  redis.call('HSET', base, 'state', st, 'closed', t, 'why', why)
  if st == 'failed' then round_over(k) end
  event(k[1], 't', 'round.' .. st, 'n', a[2], 'acc', acc, 'why', why)
  wake(k[1], 'close')
  return {st, acc}
end

local function checkin_one(k, a) return elsewhere(planned(k, checkin(k, a), a[2]), a[5]) end
local function commit_one(k, a)
  return metrics_late(k, quota_uploaded(k, a[2], committed_before(k, a, commit(k, a))), a[2], a[8])
end

redis.register_function('trib_round_open', round_open)
redis.register_function('trib_checkin', checkin_one)
redis.register_function('trib_reserve', function(k, a)
  return metrics_late(k, counted_before(k, a, quota_upload(k, a, reserve, release)), a[2], a[5])
end)
redis.register_function('trib_release', function(k, a) return quota_uploaded(k, a[2], release(k, a)) end)
redis.register_function('trib_commit', commit_one)
redis.register_function('trib_deadline', deadline)
