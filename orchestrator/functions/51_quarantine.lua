-- SPDX-License-Identifier: Apache-2.0
do     -- a chunk of Lua has room for 200 local names: these are of this file alone
-- ---- an update whose folding kills its function, every time: it is taken out of its round ----
--   on a round: quarantined how many; quar 'update|client|node|why;..' of the first LISTED; q:<update> 1
-- Its client is one that has reported in that round (the place in its record is QUARANTINED), and may report in later ones.

local LISTED = 8

-- The row of :upd that has this update in this very slot -> field, parts
local function row_of(upd, id, place)
  local all = redis.call('HGETALL', upd)
  for i = 1, #all, 2 do
    local had, ms, dg, w, at = string.match(all[i + 1], '^C|([^|]*)|(%d+)|([^|]*)|([^|]*)|(.*)$')
    if had == id and at == place then return all[i], {ms = ms, digest = dg, weight = w} end
  end
  return nil
end

-- Of a round: the client keeps its record, and its place is somebody else's. -> raw weight
local function out_of_round(r, client, id, u)
  local raw = string.match(redis.call('HGET', r .. ':late', client) or '', '|(%d+)$') or u.weight
  redis.call('HDEL', r .. ':late', client)
  redis.call('HSET', r .. ':upd', client, table.concat({'C', id, u.ms, u.digest, u.weight, QUARANTINED}, '|'))
  redis.call('ZREM', r .. ':sel', client)
  return raw
end

-- Of a buffer -> raw weight, true when it came in an earlier one
local function out_of_buffer(k, j, r, n, field, client, id, u)
  local p = prefix(k[1])
  local from, raw = string.match(redis.call('HGET', r .. ':late', field) or '', '^(%d+)|[^|]*|(%d+)$')
  redis.call('HDEL', r .. ':late', field)
  redis.call('HDEL', r .. ':upd', field)
  local c = committed(redis.call('HGET', p .. 'aupd', client) or '')
  if c and c.id == id then
    redis.call('HSET', p .. 'aupd', client,
      table.concat({'C', id, c.base, c.n, c.ms, c.digest, c.weight, c.counted, QUARANTINED}, '|'))
  end
  local e = j.mem and memory.entry(redis.call('HGET', p .. 'mem', client) or '')
  if e and e.id == id then redis.call('HDEL', p .. 'mem', client) end
  return raw or u.weight, j.mem and from and tonumber(from) < n
end

-- A synchronous round that its deadline closed with more than it needs is closed as it is.
local function has_enough(j, r, n, left)
  if j.mode == 'async' or n ~= tonumber(j.round) then return false end
  local v = redis.call('HMGET', r, 'state', 'why', 'quorum')
  return v[1] == 'closing' and v[2] ~= 'goal' and left > 0 and left >= tonumber(v[3])
end

-- Its slot will not be folded: from now on the round does not count it. ARGV round update place node why
-- -> OK client left | SAME | NOOP state ('done': the model is made; 'gone': it does not count there) | NOJOB
local function quarantine(k, a)
  local j = job_of(k)
  if not j.state then return {'NOJOB'} end
  local r, n = prefix(k[1]) .. 'r:' .. a[1], tonumber(a[1])
  local v = redis.call('HMGET', r, 'state', 'task', 'q:' .. a[2], 'n:' .. a[4])
  if v[3] then return {'SAME'} end
  if v[1] ~= 'open' and v[1] ~= 'closing' then return {'NOOP', v[1] or 'none'} end
  if v[2] then return {'NOOP', 'done'} end
  local field, u = row_of(r .. ':upd', a[2], a[3])
  if not field or place_gone(k, a[3], a[4]) or tonumber(v[4] or '0') < 1 then return {'NOOP', 'gone'} end
  local client, raw, kept = string.match(field, '^(.*)@%d+$'), nil, nil
  if client then
    raw, kept = out_of_buffer(k, j, r, n, field, client, a[2], u)
  else
    client, raw = field, out_of_round(r, field, a[2], u)
  end
  taken_out(k, r, a[4], a[3], client, a[2], u.weight, raw)
  if kept then redis.call('HINCRBY', r, 'kept', -1) end
  local left = redis.call('HINCRBY', r, 'acc', -1)
  redis.call('HSET', r, 'q:' .. a[2], 1)
  if redis.call('HINCRBY', r, 'quarantined', 1) <= LISTED then
    redis.call('HSET', r, 'quar', (redis.call('HGET', r, 'quar') or '') .. table.concat({a[2], client, a[4], a[5]}, '|') .. ';')
  end
  event(k[1], 't', 'update.quarantined', 'n', a[1], 'update', a[2], 'client', client, 'node', a[4], 'why', a[5])
  if not has_enough(j, r, n, left) then goes_on(k, j, r, n, left, 'quarantined') end
  wake(k[1], 'round')
  return {'OK', client, tostring(left)}
end

redis.register_function('trib_quarantine', quarantine)
end
