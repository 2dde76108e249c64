-- SPDX-License-Identifier: Apache-2.0
-- ---- the last update of each client that counted, known longer than its round's records are ----
--   :last  hash  client -> as in :aupd, 'C|id|base|n|ms|digest|weight|counted|place'; COUNTED_MAX clients
-- Of a synchronous job written at the commit, of an asynchronous one when its client gets another place. What is
-- declared lost is forgotten: it does not count.

local COUNTED_MAX = 1000000

-- 'C|id|base|n|ms|digest|weight|counted|place' taken apart
local function committed(u)
  local id, base, n, ms, dg, w, eff, place =
    string.match(u, '^C|([^|]*)|(%d+)|(%d+)|(%d+)|([^|]*)|([^|]*)|([^|]*)|(.*)$')
  return id and {id = id, base = base, n = n, ms = ms, digest = dg, weight = w, counted = eff, place = place}
end

local function last_put(k, client, record)
  if string.sub(record, -1) == QUARANTINED then return end
  local key = prefix(k[1]) .. 'last'
  if redis.call('HLEN', key) < COUNTED_MAX or redis.call('HEXISTS', key, client) == 1 then
    redis.call('HSET', key, client, record)
  end
end

local function last_counted(k, client, id, n, ms, digest, weight, counted, place)
  last_put(k, client, table.concat({'C', id, '0', n, ms, digest, weight, counted, place}, '|'))
end

local function last_of(k, client, id)
  local c = committed(redis.call('HGET', prefix(k[1]) .. 'last', client) or '')
  return c and c.id == id and c or nil
end

local function last_lost(k, client, id)
  if last_of(k, client, id) then redis.call('HDEL', prefix(k[1]) .. 'last', client) end
end

-- ---- a round counts less: its update was lost (52_lost) or is poison (51_quarantine) ----
-- w: the weight that counted; raw: before any discount
local function taken_out(k, r, node, place, client, id, w, raw)
  last_lost(k, client, id)
  uncount(r, node, place, w)
  redis.call('HINCRBY', r, 'wsum', '-' .. w)
  redis.call('HINCRBY', r, 'wraw', '-' .. raw)
  metrics_drop(r, id)
end

-- One that was closing and has `left` now is open again, if others may take the places; a buffer is aggregated as it is.
local function goes_on(k, j, r, n, left, why)
  if redis.call('HGET', r, 'state') ~= 'closing' then return end
  if j.mode ~= 'async' and n == tonumber(j.round) then
    redis.call('HSET', r, 'state', 'open', 'deadline', math.max(now() + 5000, tonumber(redis.call('HGET', r, 'deadline'))))
    redis.call('HDEL', r, 'closed', 'why')
  elseif left == 0 then
    redis.call('HSET', r, 'state', 'failed', 'why', why)
    round_over(k)
  end
end

local FORGOTTEN = {NOTSEL = true, CLOSED = true, STALE = true, NORES = true, QUOTA = true}

-- To a reservation, to which the records have nothing to say: did it count? ARGV as trib_reserve
local function counted_before(k, a, answer)
  local c = FORGOTTEN[answer[1]] and last_of(k, a[1], a[2])
  return c and {'DUP', c.ms, c.digest, c.weight, c.counted, c.n} or answer
end

-- The same to a commit. ARGV as trib_commit
local function committed_before(k, a, answer)
  local c = FORGOTTEN[answer[1]] and last_of(k, a[1], a[2])
  if not c then return answer end
  if c.digest ~= a[4] or c.weight ~= a[5] then return {'CONFLICT'} end
  return {c.place == a[6] and 'SAME' or 'DUP', c.ms, c.digest, c.weight, c.counted, c.n}
end
