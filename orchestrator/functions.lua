#!lua name=tributary
-- SPDX-License-Identifier: Apache-2.0
-- Redis holds the truth; every transition is one function here, atomic and idempotent.
--
-- KEYS[1] is always the job's hash, trib:{<job>}:job, unless said otherwise; the other keys of a
-- job are derived from it (same {job} tag):
--   :job    hash    id name spec state created epoch leader round version goal quorum selmax
--                   deadline_ms lease_ms stop_rounds layout header params bytes reason tenant tokprune
--                   b:<node> (the boot whose memory lives there; commits into others are refused)
--   :r:<n>  hash    state base goal quorum selmax opened deadline closed published acc inflight
--                   selected wsum n:<node> why version digest task tasknode
--   :r:<n>:sel zset client -> end of lease (ms)
--   :r:<n>:upd hash client -> 'S|id|exp' selected, 'R|id|exp' reserved,
--                             'C|id|ms|digest|weight|place' committed (weight: fixed point 2^-20)
--   below on the job: 'fail' = a round below its quorum at the deadline fails; else it is extended
--   asynchronous jobs also: mode amax afn aalpha ahinge adenom on the job; :aupd hash client ->
--                             'S|id|exp|base', 'R|id|exp|base', 'C|id|base|n|ms|digest|weight|counted|place';
--                             :infl zset client -> end of lease; a round is a buffer, its :upd fields are client@base
--   pubround on the job: the last round that is over; the round being aggregated is the one after it
--   :models hash    version -> digest|bytes|round|ms
--   :ev     stream  events (SSE), MAXLEN ~ 10000
--   :tok    hash    SHA-256 of a client's token (hex) -> client|scope|expires_ms|created_ms
--   :tokid  hash    first 12 digits of such a hash -> the hash (or hashes)
--   :idem:<key>     idempotency
-- trib:jobs zset, trib:nodes set, trib:node:<n> hash, trib:lease:orch, trib:fence, trib:key:ticket
-- place = '<node>:<boot>:<slot>:<gen>'. token = '<epoch>|<leader>'. Time is Redis TIME (ms).
-- Channel trib:wake carries '<what> <job>', what in: job round close done publish gone purge (a hint;
-- whoever needs certainty also polls).

local KEEP_ROUNDS = 64        -- rounds whose records are kept
local TOKENS_MAX = 100000     -- of a job

local function now() local t = redis.call('TIME'); return t[1] * 1000 + math.floor(t[2] / 1000) end
local function prefix(k) return string.sub(k, 1, -4) end
local function wake(k, what) redis.call('PUBLISH', 'trib:wake', what .. ' ' .. string.match(k, '{(.-)}')) end
local function event(k, ...)
  redis.call('XADD', prefix(k) .. 'ev', 'MAXLEN', '~', 10000, '*', ...)
end

local function fence(job, tok)
  local e, who = string.match(tok, '^(%d+)|(.+)$')
  if not e then return false end
  local c = redis.call('HMGET', job, 'epoch', 'leader')
  local cur, ep = tonumber(c[1] or '0'), tonumber(e)
  if ep < cur or (ep == cur and c[2] and c[2] ~= who) then return false end
  if ep > cur then redis.call('HSET', job, 'epoch', e, 'leader', who) end
  return true
end

-- KEYS trib:key:ticket ; ARGV candidate (64 hex) -> the cluster's ticket key
local function cluster_init(k, a)
  redis.call('SETNX', k[1], a[1])
  return redis.call('GET', k[1])
end

-- KEYS lease fence ; ARGV who ttl_ms config_epoch -> {epoch, 1 if newly taken}; {0,0,holder} if another's
local function lease_take(k, a)
  local cur = redis.call('GET', k[1])
  if cur then
    local who, ep = string.match(cur, '^(.*)|(%d+)$')
    if who == a[1] then redis.call('PEXPIRE', k[1], a[2]); return {tonumber(ep), 0} end
    return {0, 0, who}
  end
  local ep, base = redis.call('INCR', k[2]), tonumber(a[3] or '0') * 1000000000
  if ep <= base then ep = base + 1; redis.call('SET', k[2], string.format('%.0f', ep)) end
  redis.call('SET', k[1], a[1] .. '|' .. string.format('%.0f', ep), 'PX', a[2])
  return {ep, 1}
end
-- KEYS lease ; ARGV who
local function lease_drop(k, a)
  local cur = redis.call('GET', k[1])
  if cur and string.match(cur, '^(.*)|%d+$') == a[1] then redis.call('DEL', k[1]); return 1 end
  return 0
end

-- KEYS trib:node:<n> ; ARGV node ttl_ms field value ... (agent heartbeat)
local function node_up(k, a)
  redis.call('SADD', 'trib:nodes', a[1])
  local fresh = redis.call('EXISTS', k[1]) == 0
  local f = {}
  for i = 3, #a do f[#f + 1] = a[i] end
  redis.call('HSET', k[1], unpack(f))
  redis.call('PEXPIRE', k[1], a[2])
  return fresh and 1 or 0
end

-- ARGV token id name spec_json goal quorum selmax deadline_ms lease_ms stop_rounds tenant -> OK | EXISTS
local function job_create(k, a)
  if redis.call('EXISTS', k[1]) == 1 then return {'EXISTS'} end
  local t = now()
  local e, who = string.match(a[1], '^(%d+)|(.+)$')
  redis.call('HSET', k[1], 'id', a[2], 'name', a[3], 'spec', a[4], 'state', 'created', 'created', t,
    'epoch', e or '0', 'leader', who or '', 'round', 0, 'version', -1, 'goal', a[5], 'quorum', a[6],
    'selmax', a[7], 'deadline_ms', a[8], 'lease_ms', a[9], 'stop_rounds', a[10], 'pubround', 0,
    'tenant', a[11] or 'default')
  local ok, spec = pcall(cjson.decode, a[4])
  if ok and type(spec) == 'table' and (spec.sync or {}).below_quorum == 'fail' then
    redis.call('HSET', k[1], 'below', 'fail')
  end
  if ok and type(spec) == 'table' and spec.mode == 'async' then
    local y, st = spec.async or {}, (spec.async or {}).staleness or {}
    redis.call('HSET', k[1], 'mode', 'async', 'amax', y.max_staleness or 20, 'afn', st.fn or 'poly',
      'aalpha', st.alpha or 0.5, 'ahinge', st.after or 0, 'adenom', (spec.aggregation or {}).denominator or 'weight_sum')
  end
  redis.call('ZADD', 'trib:jobs', t, a[2])
  event(k[1], 't', 'job.created', 'name', a[3])
  wake(k[1], 'job')
  return {'OK', t}
end

local ok_next = {
  created = {running = 1, stopped = 1, failed = 1},
  running = {paused = 1, finished = 1, stopped = 1, failed = 1},
  paused = {running = 1, stopped = 1, failed = 1},
}
-- ARGV token from to reason -> OK | SAME | STATE s | FENCED | NOJOB
local function job_set(k, a)
  local st = redis.call('HGET', k[1], 'state')
  if not st then return {'NOJOB'} end
  if not fence(k[1], a[1]) then return {'FENCED'} end
  if st == a[3] then return {'SAME'} end
  if st ~= a[2] or not (ok_next[st] and ok_next[st][a[3]]) then return {'STATE', st} end
  redis.call('HSET', k[1], 'state', a[3], 'reason', a[4] or '')
  event(k[1], 't', 'job.' .. a[3], 'reason', a[4] or '')
  wake(k[1], 'job')
  return {'OK'}
end

-- The initial model (version 0), which fixes the layout. ARGV digest data_bytes elements header_json
-- -> OK | DUP | CONFLICT | STATE s | NOJOB
local function model_init(k, a)
  local j = redis.call('HMGET', k[1], 'state', 'version')
  if not j[1] then return {'NOJOB'} end
  local have = redis.call('HGET', prefix(k[1]) .. 'models', '0')
  if have then
    if string.match(have, '^([^|]*)') == a[1] then return {'DUP'} end
    return {'CONFLICT'}
  end
  if j[1] ~= 'created' then return {'STATE', j[1]} end
  redis.call('HSET', prefix(k[1]) .. 'models', '0', a[1] .. '|' .. a[2] .. '|0|' .. now())
  redis.call('HSET', k[1], 'version', 0, 'bytes', a[2], 'params', a[3], 'header', a[4], 'layout', a[1])
  event(k[1], 't', 'model.published', 'v', 0, 'digest', a[1])
  wake(k[1], 'job')
  return {'OK'}
end

-- A place in memory that was declared lost: sent late, or again. Nobody would ever fold it.
local function place_gone(k, place, node)
  local lives = redis.call('HGET', k[1], 'b:' .. node)
  return lives and string.match(string.sub(place, #node + 1), '^:([^:]*):') ~= lives
end

-- ---- asynchronous jobs (FedBuff; Papaya): a buffer of K updates is a round; the next one is opened by the
-- commit that fills it, so that no client ever waits for an aggregation ----

-- Discount of an update made `tau` versions ago: const 1; poly (1+tau)^-alpha (FedBuff: alpha 1/2);
-- hinge 1 up to `after`, then 1/(alpha*(tau-after)+1) (FedAsync).
local function discount(j, tau)
  local alpha, after = tonumber(j.aalpha), tonumber(j.ahinge)
  if j.afn == 'poly' then return (1 + tau) ^ -alpha end
  if j.afn == 'hinge' and tau > after then return 1 / (alpha * (tau - after) + 1) end
  return 1
end

local FIELDS = {'mode', 'state', 'round', 'version', 'selmax', 'lease_ms', 'goal', 'quorum', 'deadline_ms', 'pubround',
                'amax', 'afn', 'aalpha', 'ahinge', 'adenom', 'below'}
local function job_of(k)
  local v, j = redis.call('HMGET', k[1], unpack(FIELDS)), {}
  for i = 1, #FIELDS do j[FIELDS[i]] = v[i] or nil end
  return j
end

local function open_buffer(k, j, n, t)
  redis.call('HSET', prefix(k[1]) .. 'r:' .. n, 'state', 'open', 'base', j.version, 'goal', j.goal, 'quorum', j.quorum,
    'selmax', j.selmax, 'opened', t, 'deadline', t + tonumber(j.deadline_ms), 'acc', 0, 'inflight', 0, 'selected', 0,
    'wsum', 0, 'wraw', 0)
  redis.call('HSET', k[1], 'round', n)
  local old = n - KEEP_ROUNDS
  if old > 0 then redis.call('DEL', prefix(k[1]) .. 'r:' .. old .. ':upd') end
  event(k[1], 't', 'round.open', 'n', n, 'base', j.version)
end

-- A round is over: what comes after it starts from the present version. Buffers may end out of order (one whose
-- updates were all lost): none that waits for its aggregation is passed over.
local function round_over(k)
  local r, n = prefix(k[1]) .. 'r:', tonumber(redis.call('HGET', k[1], 'pubround') or '0')
  while true do
    local state = redis.call('HGET', r .. (n + 1), 'state')
    if state ~= 'published' and state ~= 'failed' then break end
    n = n + 1
  end
  redis.call('HSET', k[1], 'pubround', n)
  local after = r .. (n + 1)
  if redis.call('EXISTS', after) == 1 then
    redis.call('HSET', after, 'base', redis.call('HGET', k[1], 'version'))
  end
end

local function acheckin(k, a, j)
  local p, t = prefix(k[1]), now()
  if not redis.call('HGET', p .. 'r:' .. j.round, 'state') then return {'WAIT', 'noround'} end
  local ends, id = t + tonumber(j.lease_ms), a[2]
  local base = j.version
  local u = redis.call('HGET', p .. 'aupd', a[1])
  if u then
    local s, had, exp, from = string.match(u, '^(%a)|([^|]*)|(%d+)|(%d+)')
    if s == 'C' and exp == j.version then return {'WAIT', 'reported'} end      -- (client, base) once
    if s == 'R' and tonumber(exp) > t then id, base = had, from end            -- an upload is under way
  end
  redis.call('ZREMRANGEBYSCORE', p .. 'infl', '-inf', t)
  if not redis.call('ZSCORE', p .. 'infl', a[1]) and redis.call('ZCARD', p .. 'infl') >= tonumber(j.selmax) then
    return {'WAIT', 'full'}
  end
  redis.call('ZADD', p .. 'infl', ends, a[1])
  if id == a[2] then redis.call('HSET', p .. 'aupd', a[1], 'S|' .. id .. '|' .. ends .. '|' .. base) end
  redis.call('HINCRBY', p .. 'r:' .. j.round, 'selected', 1)
  return {'SELECTED', j.round, base, tostring(ends), id, ends}
end

-- 'C|id|base|n|ms|digest|weight|counted|place' taken apart
local function committed(u)
  local id, base, n, ms, dg, w, eff, place =
    string.match(u, '^C|([^|]*)|(%d+)|(%d+)|(%d+)|([^|]*)|([^|]*)|([^|]*)|(.*)$')
  return id and {id = id, base = base, n = n, ms = ms, digest = dg, weight = w, counted = eff, place = place}
end

local function areserve(k, a, j)
  local p, t = prefix(k[1]), now()
  local u = redis.call('HGET', p .. 'aupd', a[1])
  if not u then return {'NOTSEL'} end
  local c = committed(u)
  if c then
    if c.id ~= a[2] then return {'NOTSEL'} end
    return {'DUP', c.ms, c.digest, c.weight}
  end
  if j.state ~= 'running' and j.state ~= 'paused' then return {'CLOSED', j.state} end
  local s, id, _, base = string.match(u, '^(%a)|([^|]*)|(%d+)|(%d+)$')
  if id ~= a[2] then return {'NOTSEL'} end
  local tau = tonumber(j.version) - tonumber(base)
  if tau > tonumber(j.amax) then return {'STALE', tau} end
  local ends = t + tonumber(a[4])
  redis.call('HSET', p .. 'aupd', a[1], 'R|' .. id .. '|' .. ends .. '|' .. base)
  redis.call('ZADD', p .. 'infl', ends, a[1])
  return {'OK', base}
end

-- The client has checked in again since, but this very slot counts in a buffer that is not over: SAME; else NORES
local function acounted(p, a, j)
  local v, done, last = tonumber(j.version), tonumber(j.pubround), tonumber(j.round)
  for n = done + 1, last do
    for base = math.max(0, v - tonumber(j.amax) - (last - done)), v do
      local u = redis.call('HGET', p .. 'r:' .. n .. ':upd', a[1] .. '@' .. base)
      local id, ms, dg, counted, place = string.match(u or '', '^C|([^|]*)|(%d+)|([^|]*)|([^|]*)|(.*)$')
      if id == a[2] and place == a[6] then return {'SAME', ms, dg, a[5], counted, tostring(n)} end
    end
  end
  return {'NORES'}
end

local function acommit(k, a, j)
  local p, t = prefix(k[1]), now()
  local u = redis.call('HGET', p .. 'aupd', a[1])
  if not u then return acounted(p, a, j) end
  local c = committed(u)
  if c then
    if c.id == a[2] and c.digest == a[4] and c.weight == a[5] then
      return {c.place == a[6] and 'SAME' or 'DUP', c.ms, c.digest, c.weight, c.counted, c.n}
    end
    return c.id == a[2] and {'CONFLICT'} or acounted(p, a, j)
  end
  local s, id, _, base = string.match(u, '^(%a)|([^|]*)|(%d+)|(%d+)$')
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
  if redis.call('HGET', r, 'state') ~= 'open' then return {'CLOSED', 'none'} end
  local counted = string.format('%.0f', math.max(1, math.floor(tonumber(a[5]) * discount(j, tau) + 0.5)))
  redis.call('HSET', r .. ':upd', a[1] .. '@' .. base, 'C|' .. id .. '|' .. t .. '|' .. a[4] .. '|' .. counted .. '|' .. a[6])
  redis.call('HSET', p .. 'aupd', a[1],
    'C|' .. id .. '|' .. base .. '|' .. n .. '|' .. t .. '|' .. a[4] .. '|' .. a[5] .. '|' .. counted .. '|' .. a[6])
  redis.call('ZREM', p .. 'infl', a[1])
  redis.call('HINCRBY', r, 'wsum', counted)
  redis.call('HINCRBY', r, 'wraw', a[5])
  redis.call('HINCRBY', r, 'staleness', tau)
  redis.call('HINCRBY', r, 'n:' .. a[7], 1)
  local acc = redis.call('HINCRBY', r, 'acc', 1)
  event(k[1], 't', 'update.accepted', 'n', n, 'update', id, 'staleness', tau)
  if acc < tonumber(redis.call('HGET', r, 'goal')) then return {'OK', acc, t, counted, n} end
  redis.call('HSET', r, 'state', 'closing', 'closed', t, 'why', 'goal')
  event(k[1], 't', 'buffer.flush', 'n', n, 'acc', acc, 'why', 'goal')
  open_buffer(k, j, tonumber(n) + 1, t)
  wake(k[1], 'close')
  return {'CLOSE', acc, t, counted, n}
end

-- The flush time-out: what is there is aggregated; an empty buffer waits on.
local function aflush(k, a, j, r, force)
  local acc, t = tonumber(r[3]), now()
  if force == '0' and t < tonumber(r[2]) then return {'EARLY', r[2]} end
  local base = prefix(k[1]) .. 'r:' .. a[2]
  if acc == 0 then
    if force ~= '0' then return {'QUORUM', 0} end
    redis.call('HSET', base, 'deadline', t + tonumber(j.deadline_ms))
    return {'EARLY', tostring(t + tonumber(j.deadline_ms))}
  end
  redis.call('HSET', base, 'state', 'closing', 'closed', t, 'why', force == '0' and 'deadline' or 'operator')
  event(k[1], 't', 'buffer.flush', 'n', a[2], 'acc', acc, 'why', 'timeout')
  if a[2] == j.round then open_buffer(k, j, tonumber(a[2]) + 1, t) end
  wake(k[1], 'close')
  return {'closing', acc}
end

local function anode_lost(k, a, j)
  local mine, lives, lost = a[2] .. ':', a[2] .. ':' .. a[3] .. ':', 0
  local p = prefix(k[1])
  for n = tonumber(j.pubround) + 1, tonumber(j.round) do
    local r = p .. 'r:' .. n
    local done = redis.call('HEXISTS', r, 'task') == 1              -- its model file is written
    local all, here = done and {} or redis.call('HGETALL', r .. ':upd'), 0
    for i = 1, #all, 2 do
      local id, _, _, w, place = string.match(all[i + 1], '^C|([^|]*)|(%d+)|([^|]*)|([^|]*)|(.*)$')
      if id and string.sub(place, 1, #mine) == mine
         and (a[3] == '' or string.sub(place, 1, #lives) ~= lives) then
        local client = string.match(all[i], '^(.*)@%d+$')
        local c = committed(redis.call('HGET', p .. 'aupd', client) or '')
        if c and c.id == id then
          redis.call('HDEL', p .. 'aupd', client)
          redis.call('HINCRBY', r, 'wraw', '-' .. c.weight)
        end
        redis.call('HDEL', r .. ':upd', all[i])
        redis.call('HINCRBY', r, 'wsum', '-' .. w)
        event(k[1], 't', 'update.lost', 'n', n, 'update', id, 'node', a[2])
        here = here + 1
      end
    end
    if here > 0 then
      local left = redis.call('HINCRBY', r, 'acc', -here)
      redis.call('HINCRBY', r, 'n:' .. a[2], -here)
      redis.call('HINCRBY', r, 'lost', here)
      redis.call('HDEL', r, 'task')
      if left == 0 and redis.call('HGET', r, 'state') == 'closing' then
        redis.call('HSET', r, 'state', 'failed', 'why', 'lost')
        round_over(k)
      end
      lost = lost + here
    end
  end
  if lost > 0 then wake(k[1], 'round') end
  return {'OK', lost}
end

-- ARGV token n base goal quorum selmax deadline_ms -> OK deadline | EXISTS | STATE s | ORDER | FENCED
local function round_open(k, a)
  local j = redis.call('HMGET', k[1], 'state', 'round', 'version')
  if not j[1] then return {'NOJOB'} end
  if not fence(k[1], a[1]) then return {'FENCED'} end
  if j[1] ~= 'running' then return {'STATE', j[1]} end
  local r = prefix(k[1]) .. 'r:' .. a[2]
  if redis.call('EXISTS', r) == 1 then return {'EXISTS'} end
  if tonumber(a[2]) ~= tonumber(j[2]) + 1 or a[3] ~= j[3] then return {'ORDER', j[2], j[3]} end
  if tonumber(j[2]) > 0 then
    local last = redis.call('HGET', prefix(k[1]) .. 'r:' .. j[2], 'state')
    if last ~= 'published' and last ~= 'failed' then return {'ORDER', j[2], last or ''} end
  end
  local t = now()
  redis.call('HSET', r, 'state', 'open', 'base', a[3], 'goal', a[4], 'quorum', a[5], 'selmax', a[6],
    'opened', t, 'deadline', t + tonumber(a[7]), 'acc', 0, 'inflight', 0, 'selected', 0, 'wsum', 0)
  redis.call('HSET', k[1], 'round', a[2])
  local old = tonumber(a[2]) - KEEP_ROUNDS
  if old > 0 then
    redis.call('DEL', prefix(k[1]) .. 'r:' .. old .. ':upd', prefix(k[1]) .. 'r:' .. old .. ':sel')
  end
  event(k[1], 't', 'round.open', 'n', a[2], 'base', a[3])
  wake(k[1], 'round')
  return {'OK', t + tonumber(a[7])}
end

-- ARGV client update_id_candidate -> SELECTED round base deadline update_id lease_end
--   | WAIT why (reported full noround closing) | DONE state | PAUSED | NOMODEL | NOJOB
local function checkin(k, a)
  local j = job_of(k)
  if not j.state then return {'NOJOB'} end
  if j.state == 'finished' or j.state == 'stopped' or j.state == 'failed' then return {'DONE', j.state} end
  if j.version == '-1' then return {'NOMODEL'} end
  if j.state == 'paused' then return {'PAUSED'} end
  if j.mode == 'async' then return acheckin(k, a, j) end
  local base = prefix(k[1]) .. 'r:' .. j.round
  local r = redis.call('HMGET', base, 'state', 'selmax', 'base', 'deadline')
  if r[1] ~= 'open' then return {'WAIT', r[1] and 'closing' or 'noround'} end
  local t, sel, upd = now(), base .. ':sel', base .. ':upd'
  local ends = t + tonumber(j.lease_ms)
  local u = redis.call('HGET', upd, a[1])
  if u then
    local st, id = string.match(u, '^(%a)|([^|]*)|')
    if st == 'C' then return {'WAIT', 'reported'} end
    redis.call('ZADD', sel, ends, a[1])
    if st == 'S' then redis.call('HSET', upd, a[1], 'S|' .. id .. '|' .. ends) end
    return {'SELECTED', j.round, r[3], r[4], id, ends}
  end
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
    if not freed then return {'WAIT', 'full'} end
  end
  redis.call('ZADD', sel, ends, a[1])
  redis.call('HSET', upd, a[1], 'S|' .. a[2] .. '|' .. ends)
  redis.call('HINCRBY', base, 'selected', 1)
  return {'SELECTED', j.round, r[3], r[4], a[2], ends}
end

-- Before a body byte is read. ARGV client update_id round lease_ms
-- -> OK base | CLOSED state | NOTSEL | STALE versions | DUP ms digest weight | NOJOB
local function reserve(k, a)
  local j = job_of(k)
  local st = j.state
  if not st then return {'NOJOB'} end
  if j.mode == 'async' then return areserve(k, a, j) end
  local base = prefix(k[1]) .. 'r:' .. a[3]
  local upd = base .. ':upd'
  local u = redis.call('HGET', upd, a[1])
  if u then
    local s, id, rest = string.match(u, '^(%a)|([^|]*)|(.*)$')
    if s == 'C' then
      if id ~= a[2] then return {'NOTSEL'} end
      local ms, dg, w = string.match(rest, '^(%d+)|([^|]*)|([^|]*)|')
      return {'DUP', ms, dg, w}
    end
  end
  local r = redis.call('HMGET', base, 'state', 'base')
  if r[1] ~= 'open' then return {'CLOSED', r[1] or 'none'} end
  if st ~= 'running' and st ~= 'paused' then return {'CLOSED', st} end
  if not u then return {'NOTSEL'} end
  local s, id = string.match(u, '^(%a)|([^|]*)|')
  if id ~= a[2] then return {'NOTSEL'} end
  if s == 'S' then redis.call('HINCRBY', base, 'inflight', 1) end
  local ends = now() + tonumber(a[4])
  redis.call('HSET', upd, a[1], 'R|' .. id .. '|' .. ends)
  redis.call('ZADD', base .. ':sel', ends, a[1])
  return {'OK', r[2]}
end
-- The upload ended without a commit (client gone, refused): back to selected. ARGV client update_id round
local function release(k, a)
  local au = redis.call('HGET', prefix(k[1]) .. 'aupd', a[1])
  if au then
    local as, aid, aexp, abase = string.match(au, '^(%a)|([^|]*)|(%d+)|(%d+)$')
    if as ~= 'R' or aid ~= a[2] then return {'NOOP'} end
    redis.call('HSET', prefix(k[1]) .. 'aupd', a[1], 'S|' .. aid .. '|' .. aexp .. '|' .. abase)
    return {'OK'}
  end
  local base = prefix(k[1]) .. 'r:' .. a[3]
  local u = redis.call('HGET', base .. ':upd', a[1])
  local s, id, exp = string.match(u or '', '^(%a)|([^|]*)|(%d+)')
  if s ~= 'R' or id ~= a[2] then return {'NOOP'} end
  redis.call('HSET', base .. ':upd', a[1], 'S|' .. id .. '|' .. exp)
  redis.call('HINCRBY', base, 'inflight', -1)
  return {'OK'}
end

-- After all checks. ARGV client update_id round digest weight place node
-- -> OK n ms counted round | CLOSE .. (counted: the weight that counts, staleness discounted; round: the one it
-- counts in) | SAME, DUP ms digest weight counted round | CONFLICT | CLOSED state | STALE versions | NORES | NOJOB
local function commit(k, a)
  local j = job_of(k)
  local st = j.state
  if not st then return {'NOJOB'} end
  if j.mode == 'async' then return acommit(k, a, j) end
  local base = prefix(k[1]) .. 'r:' .. a[3]
  local upd = base .. ':upd'
  local u = redis.call('HGET', upd, a[1])
  if not u then return {'NORES'} end
  local s, id, rest = string.match(u, '^(%a)|([^|]*)|(.*)$')
  if s == 'C' then
    local ms, dg, w, place = string.match(rest, '^(%d+)|([^|]*)|([^|]*)|(.*)$')
    if id == a[2] and dg == a[4] and w == a[5] then
      -- the very slot that counted (a repeated commit), or another copy of the same upload
      return {place == a[6] and 'SAME' or 'DUP', ms, dg, w, w, a[3]}
    end
    return {'CONFLICT'}
  end
  if id ~= a[2] then return {'NORES'} end
  if place_gone(k, a[6], a[7]) then return {'NORES'} end
  local state = redis.call('HGET', base, 'state')
  if state ~= 'open' or (st ~= 'running' and st ~= 'paused') then
    if s == 'R' then redis.call('HINCRBY', base, 'inflight', -1) end
    redis.call('HSET', upd, a[1], 'S|' .. id .. '|0')
    redis.call('HINCRBY', base, 'late', 1)
    return {'CLOSED', state or 'none'}
  end
  local t = now()
  redis.call('HSET', upd, a[1], 'C|' .. id .. '|' .. t .. '|' .. a[4] .. '|' .. a[5] .. '|' .. a[6])
  redis.call('ZADD', base .. ':sel', '+inf', a[1])
  if s == 'R' then redis.call('HINCRBY', base, 'inflight', -1) end
  redis.call('HINCRBY', base, 'wsum', a[5])
  redis.call('HINCRBY', base, 'n:' .. a[7], 1)
  local n = redis.call('HINCRBY', base, 'acc', 1)
  event(k[1], 't', 'update.accepted', 'n', a[3], 'update', id)
  if n >= tonumber(redis.call('HGET', base, 'goal')) then
    redis.call('HSET', base, 'state', 'closing', 'closed', t, 'why', 'goal')
    event(k[1], 't', 'round.closing', 'n', a[3], 'acc', n, 'why', 'goal')
    wake(k[1], 'close')
    return {'CLOSE', n, t, a[5], a[3]}
  end
  return {'OK', n, t, a[5], a[3]}
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
  redis.call('HSET', base, 'state', st, 'closed', t, 'why', why)
  if st == 'failed' then round_over(k) end
  event(k[1], 't', 'round.' .. st, 'n', a[2], 'acc', acc, 'why', why)
  wake(k[1], 'close')
  return {st, acc}
end

-- What an agent must know of the round to be aggregated: the one after the last that is over. ARGV node -> {state,
-- version, params, bytes, round, rstate, base, acc, wsum, acc_on_node, spec, selmax, goal, divisor} (texts; '' when
-- absent; divisor: what the sum is divided by, fixed point 2^-20, '0' = the sum's own weights) | NOJOB
local function node_sync(k, a)
  local j = redis.call('HMGET', k[1], 'state', 'version', 'params', 'bytes', 'round', 'spec', 'pubround', 'adenom')
  if not j[1] then return {'NOJOB'} end
  local work = math.min(tonumber(j[7] or '0') + 1, tonumber(j[5]))
  local base = prefix(k[1]) .. 'r:' .. work
  local r = redis.call('HMGET', base, 'state', 'base', 'acc', 'wsum', 'n:' .. a[1], 'selmax', 'goal', 'wraw')
  local divisor = '0'
  if j[8] == 'count' then divisor = string.format('%.0f', tonumber(r[3] or '0') * 1048576) end
  if j[8] == 'weight_sum_raw' then divisor = r[8] or '0' end
  return {j[1], j[2], j[3] or '', j[4] or '', tostring(work), r[1] or '', r[2] or '', r[3] or '0', r[4] or '0',
    r[5] or '0', j[6], r[6] or '0', r[7] or '0', divisor}
end

-- The node's top is done: the model file of version base+1 is written. First report wins.
-- ARGV n updates weight digest node -> OK | DUP | LOSER digest | NOOP state | COUNT acc wsum
local function task_done(k, a)
  local base = prefix(k[1]) .. 'r:' .. a[1]
  local r = redis.call('HMGET', base, 'state', 'acc', 'wsum', 'task')
  if not r[1] then return {'NOJOB'} end
  if r[4] then
    if r[4] == a[4] then return {'DUP'} end
    return {'LOSER', r[4]}
  end
  if r[1] ~= 'closing' then return {'NOOP', r[1]} end
  if r[2] ~= a[2] or r[3] ~= a[3] then return {'COUNT', r[2], r[3]} end
  redis.call('HSET', base, 'task', a[4], 'tasknode', a[5], 'taskms', now())
  wake(k[1], 'done')
  return {'OK'}
end

-- Compare-and-set of the version. ARGV token n expect_version digest bytes
-- -> OK version | DUP version | CONFLICT version | NOTASK | NOOP state | FENCED
local function publish(k, a)
  if redis.call('EXISTS', k[1]) == 0 then return {'NOJOB'} end
  if not fence(k[1], a[1]) then return {'FENCED'} end
  local base = prefix(k[1]) .. 'r:' .. a[2]
  local v = tonumber(redis.call('HGET', k[1], 'version'))
  local r = redis.call('HMGET', base, 'state', 'task')
  if v ~= tonumber(a[3]) then
    local d = redis.call('HGET', prefix(k[1]) .. 'models', tonumber(a[3]) + 1)
    if d and string.match(d, '^([^|]*)') == a[4] then return {'DUP', tonumber(a[3]) + 1} end
    return {'CONFLICT', v}
  end
  if r[1] ~= 'closing' then return {'NOOP', r[1] or 'none'} end
  if r[2] ~= a[4] then return {'NOTASK'} end
  local t = now()
  redis.call('HSET', prefix(k[1]) .. 'models', v + 1, a[4] .. '|' .. a[5] .. '|' .. a[2] .. '|' .. t)
  redis.call('HSET', k[1], 'version', v + 1)
  redis.call('HSET', base, 'state', 'published', 'published', t, 'version', v + 1, 'digest', a[4])
  redis.call('DEL', base .. ':sel')
  round_over(k)
  event(k[1], 't', 'model.published', 'v', v + 1, 'n', a[2], 'digest', a[4])
  wake(k[1], 'publish')
  return {'OK', v + 1}
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

-- A node's shared memory of this job is gone: its committed updates of round n are declared lost and their
-- clients may report again. ARGV n node boot_that_lives ('' = none) -> OK lost | NOOP state ('done': the
-- model file was reported before, so nothing is lost)
local function node_lost(k, a)
  local j = job_of(k)
  if not j.state then return {'NOOP', 'nojob'} end
  redis.call('HSET', k[1], 'b:' .. a[2], a[3])
  if j.mode == 'async' then return anode_lost(k, a, j) end
  local base = prefix(k[1]) .. 'r:' .. a[1]
  local upd = base .. ':upd'
  local st = redis.call('HGET', base, 'state')
  if st ~= 'open' and st ~= 'closing' then return {'NOOP', st or 'none'} end
  if st == 'closing' and redis.call('HEXISTS', base, 'task') == 1 then return {'NOOP', 'done'} end
  local mine, lives = a[2] .. ':', a[2] .. ':' .. a[3] .. ':'
  local lost, t = 0, now()
  local all = redis.call('HGETALL', upd)
  for i = 1, #all, 2 do
    local s, id, _, _, w, place = string.match(all[i + 1], '^(%a)|([^|]*)|(%d+)|([^|]*)|([^|]*)|(.*)$')
    if s == 'C' and string.sub(place, 1, #mine) == mine
       and (a[3] == '' or string.sub(place, 1, #lives) ~= lives) then
      redis.call('HSET', upd, all[i], 'S|' .. id .. '|' .. t)
      redis.call('ZADD', base .. ':sel', t + 5000, all[i])   -- the client keeps its place a while
      redis.call('HINCRBY', base, 'wsum', '-' .. w)
      event(k[1], 't', 'update.lost', 'n', a[1], 'update', id, 'node', a[2])
      lost = lost + 1
    end
  end
  if lost > 0 then
    redis.call('HINCRBY', base, 'acc', -lost)
    redis.call('HINCRBY', base, 'n:' .. a[2], -lost)
    redis.call('HINCRBY', base, 'lost', lost)
    redis.call('HDEL', base, 'task')
    if st == 'closing' then
      redis.call('HSET', base, 'state', 'open')
      redis.call('HDEL', base, 'closed', 'why')
      local r = redis.call('HMGET', base, 'deadline')
      if tonumber(r[1]) < t + 5000 then redis.call('HSET', base, 'deadline', t + 5000) end
    end
    wake(k[1], 'round')
  end
  return {'OK', lost}
end

-- ARGV token purge(0/1: model files too) -> OK keys | STATE s | FENCED | NOJOB. Only of a job that is over
-- (or never began). Wakes with 'gone', and 'purge' when the agents shall remove the model files.
local function job_delete(k, a)
  local j = redis.call('HMGET', k[1], 'state', 'round', 'id')
  if not j[1] then return {'NOJOB'} end
  if not fence(k[1], a[1]) then return {'FENCED'} end
  if j[1] == 'running' or j[1] == 'paused' then return {'STATE', j[1]} end
  local p, n = prefix(k[1]), 0
  for r = 1, tonumber(j[2]) do
    local b = p .. 'r:' .. r
    n = n + redis.call('DEL', b, b .. ':sel', b .. ':upd')
  end
  n = n + redis.call('DEL', k[1], p .. 'models', p .. 'ev', p .. 'tok', p .. 'tokid', p .. 'aupd', p .. 'infl')
  redis.call('ZREM', 'trib:jobs', j[3])
  wake(k[1], 'gone')
  if a[2] == '1' then wake(k[1], 'purge') end
  return {'OK', n}
end

-- Clients' tokens: only their hashes come here. ARGV token client('' = any) scope ttl_ms hashes (64 hex each,
-- one after the other) -> OK expires_ms | FULL n | FENCED | NOJOB
local function tokens_issue(k, a)
  if redis.call('EXISTS', k[1]) == 0 then return {'NOJOB'} end
  if not fence(k[1], a[1]) then return {'FENCED'} end
  local tok, t, n = prefix(k[1]) .. 'tok', now(), #a[5] / 64
  local have = redis.call('HLEN', tok)
  if have + n > TOKENS_MAX and t - tonumber(redis.call('HGET', k[1], 'tokprune') or '0') > 60000 then
    redis.call('HSET', k[1], 'tokprune', t)       -- it takes a while: once a minute
    local all = redis.call('HGETALL', tok)
    for i = 1, #all, 2 do
      local exp = string.match(all[i + 1], '^[^|]*|[^|]*|(%d+)|')
      if not exp or tonumber(exp) <= t then
        have = have - redis.call('HDEL', tok, all[i])
        redis.call('HDEL', tok .. 'id', string.sub(all[i], 1, 12))
      end
    end
  end
  if have + n > TOKENS_MAX then return {'FULL', have} end
  local ends = t + tonumber(a[4])
  for i = 1, n do
    local h = string.sub(a[5], 64 * i - 63, 64 * i)
    local id = string.sub(h, 1, 12)
    local same = redis.call('HGET', tok .. 'id', id) or ''       -- two of one id: revoked together
    if not string.find(same, h, 1, true) then redis.call('HSET', tok .. 'id', id, same .. h) end
    redis.call('HSET', tok, h,
      a[2] .. '|' .. a[3] .. '|' .. string.format('%.0f', ends) .. '|' .. string.format('%.0f', t))
  end
  event(k[1], 't', 'token.issued', 'count', n)
  return {'OK', ends}
end
-- ARGV token id (first 12 hex digits of a hash) -> OK n | NOOP (none) | FENCED | NOJOB
local function token_revoke(k, a)
  if redis.call('EXISTS', k[1]) == 0 then return {'NOJOB'} end
  if not fence(k[1], a[1]) then return {'FENCED'} end
  local tok, n = prefix(k[1]) .. 'tok', 0
  local hashes = redis.call('HGET', tok .. 'id', a[2]) or ''
  for i = 1, #hashes, 64 do n = n + redis.call('HDEL', tok, string.sub(hashes, i, i + 63)) end
  redis.call('HDEL', tok .. 'id', a[2])
  if n == 0 then return {'NOOP'} end
  event(k[1], 't', 'token.revoked', 'id', a[2])
  wake(k[1], 'job')
  return {'OK', n}
end

-- Idempotency. KEYS idem key ; ARGV fingerprint ttl_ms -> NEW | RUNNING | REPLAY text | MISMATCH
local function idem_begin(k, a)
  local v = redis.call('GET', k[1])
  if not v then redis.call('SET', k[1], a[1] .. '|-', 'PX', 10000); return {'NEW'} end
  local fp, res = string.match(v, '^([^|]*)|(.*)$')
  if fp ~= a[1] then return {'MISMATCH'} end
  if res == '-' then return {'RUNNING'} end
  return {'REPLAY', res}
end
-- KEYS idem key ; ARGV fingerprint ttl_ms result
local function idem_end(k, a)
  redis.call('SET', k[1], a[1] .. '|' .. a[3], 'PX', a[2])
  return {'OK'}
end

redis.register_function('trib_cluster_init', cluster_init)
redis.register_function('trib_lease_take', lease_take)
redis.register_function('trib_lease_drop', lease_drop)
redis.register_function('trib_node_up', node_up)
redis.register_function('trib_job_create', job_create)
redis.register_function('trib_job_set', job_set)
redis.register_function('trib_model_init', model_init)
redis.register_function('trib_round_open', round_open)
redis.register_function('trib_checkin', checkin)
redis.register_function('trib_reserve', reserve)
redis.register_function('trib_release', release)
redis.register_function('trib_commit', commit)
redis.register_function('trib_deadline', deadline)
redis.register_function('trib_node_sync', node_sync)
redis.register_function('trib_task_done', task_done)
redis.register_function('trib_publish', publish)
redis.register_function('trib_node_jobs', node_jobs)
redis.register_function('trib_node_lost', node_lost)
redis.register_function('trib_job_delete', job_delete)
redis.register_function('trib_tokens_issue', tokens_issue)
redis.register_function('trib_token_revoke', token_revoke)
redis.register_function('trib_idem_begin', idem_begin)
redis.register_function('trib_idem_end', idem_end)
