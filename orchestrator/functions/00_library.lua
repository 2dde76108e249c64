#!lua name=tributary
-- SPDX-License-Identifier: Apache-2.0
-- One library, made of the files of this folder in the order of their names (Makefile). Redis holds the truth;
-- every transition is one function, atomic and idempotent.
--
-- KEYS[1] is always the job's hash, trib:{<job>}:job, unless said otherwise; the other keys of a
-- job are derived from it (same {job} tag):
--   :job    hash    id name spec state created epoch leader round version goal quorum selmax
--                   deadline_ms lease_ms stop_rounds layout header params bytes reason tenant tokprune
--                   b:<node> (the boot whose memory lives there; commits into others are refused)
--   :r:<n>  hash    state base goal quorum selmax opened deadline closed published acc inflight
--                   selected wsum losing l:<node> (52_lost) n:<node> why version digest task tasknode
--   :r:<n>:sel zset client -> end of lease (ms)
--   :r:<n>:upd hash client -> 'S|id|exp' selected, 'R|id|exp' reserved,
--                             'C|id|ms|digest|weight|place' committed (weight: fixed point 2^-20)
--   below on the job: 'fail' = a round below its quorum at the deadline fails; else it is extended
--                             'L|id|m|weight' came late, counts in round m (05_policy)
--   :r:<n>:late hash client -> 'round|id|weight' of updates carried into round n or discounted; their 'C' in :upd has what counts
--   asynchronous jobs also: mode on the job; :aupd hash client -> 'S|id|exp|base|since', 'R|id|exp|base|since' (since:
--                             checked in, ms), 'C|id|base|n|ms|digest|weight|counted|place';
--                             :infl zset client -> end of lease; a round is a buffer, its :upd fields are client@base
--   gen on the job: of its spec, raised by each patch ('patched' is set then; 'switched' once its mode changed;
--                   ascan: the largest max_staleness it ever had); denom on a round: fixed when a patch changed it
--   pubround on the job: the last round that is over; the round being aggregated is the one after it
--   :last   hash    client -> its last update that counted, as in :aupd (29_counted)
--   :models hash    version -> digest|bytes|round|ms
--   :ev     stream  events (SSE), MAXLEN ~ 10000
--   :tok    hash    SHA-256 of a client's token (hex) -> client|scope|expires_ms|created_ms[|labels]
--   :tokid  hash    first 12 digits of such a hash -> the hash (or hashes)
--   :up     zset    update -> end of lease: uploads under way (19_quota.lua)
--   :tree   hash    node -> JSON: its functions of the job (expires)
--   :idem:<key>     idempotency
-- trib:jobs zset, trib:nodes set, trib:node:<n> hash, trib:lease:orch, trib:fence, trib:key:ticket
-- place = '<node>:<boot>:<slot>:<gen>'. token = '<epoch>|<leader>'. Time is Redis TIME (ms).
-- Channel trib:wake carries '<what> <job>', what in: job round close moved done copied publish gone purge (a hint;
-- whoever needs certainty also polls).

local KEEP_ROUNDS = 64        -- rounds whose records are kept
local TOKENS_MAX = 100000     -- of a job
local QUARANTINED = '!'       -- in place of the place: counted, and taken out again (51_quarantine)

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
  if ep < tonumber(redis.call('GET', 'trib:fence') or '0') then return false end   -- another led since
  if ep < cur or (ep == cur and c[2] and c[2] ~= who) then return false end
  if ep > cur then redis.call('HSET', job, 'epoch', e, 'leader', who) end
  return true
end

-- A place in memory that was declared lost: sent late, or again. Nobody would ever fold it.
local function place_gone(k, place, node)
  local lives = redis.call('HGET', k[1], 'b:' .. node)
  return lives and string.match(string.sub(place, #node + 1), '^:([^:]*):') ~= lives
end

local FIELDS = {'mode', 'state', 'round', 'version', 'selmax', 'lease_ms', 'goal', 'quorum', 'deadline_ms', 'pubround',
                'amax', 'afn', 'aalpha', 'ahinge', 'adenom', 'below', 'switched', 'patched', 'ascan', 'late', 'aoff',
                'atrig', 'adt', 'drain', 'sample', 'bkind', 'balpha', 'norms', 'mem', 'want', 'tenant'}
local function job_of(k)
  local v, j = redis.call('HMGET', k[1], unpack(FIELDS)), {}
  for i = 1, #FIELDS do j[FIELDS[i]] = v[i] or nil end
  return j
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
