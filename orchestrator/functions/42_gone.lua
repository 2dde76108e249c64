-- SPDX-License-Identifier: Apache-2.0
do     -- a chunk of Lua has room for 200 local names: these are of this file alone
-- ---- the newest version has bytes nowhere: its node was killed whole between the publication and the file ----
-- Nodes that want it and have looked in vain say so, again and again. Once nobody who lives has it the job goes on from
-- the newest older version that one of them has: its bytes get the next number. Versions rise by one, as ever.
--   on the job:  gone 'version|since|last|asked' (ms) while it is looked for; back '<new>|<of>|<lost>' of the last one
--                that was lost; backs how many versions' updates were lost so (they do not count for stop.rounds)
local GONE_ASK_MS = 500       -- nodes are asked to look no more often
local GONE_LOOK = 4096        -- older versions looked at
local GONE_BREAK_MS = 60000   -- nobody missed it for so long: the wait begins anew

-- One that may have the version: it says so, or is silent and not declared lost yet.
local function gone_held(k, version, except)
  for node in string.gmatch(redis.call('HGET', prefix(k[1]) .. 'at', version) or '', '[^,]+') do
    if node ~= except and redis.call('EXISTS', 'trib:node:' .. node) == 1 then return node end
  end
  local nodes = redis.call('SMEMBERS', 'trib:nodes')
  for i = 1, #nodes do
    if redis.call('EXISTS', 'trib:node:' .. nodes[i]) == 0 and
      redis.call('SISMEMBER', 'trib:nodes:lost', nodes[i]) == 0 then
      return nodes[i]
    end
  end
  return nil
end

-- `node` says no more that it has it.
local function gone_not_at(k, version, node)
  local at, left = prefix(k[1]) .. 'at', {}
  for n in string.gmatch(redis.call('HGET', at, version) or '', '[^,]+') do
    if n ~= node then left[#left + 1] = n end
  end
  if #left > 0 then redis.call('HSET', at, version, table.concat(left, ',')) else redis.call('HDEL', at, version) end
end

-- ms left until it has been looked for so long without a break. All who live are asked to look: who finds it says so
-- (trib_model_at).
local function gone_left(k, version, wait)
  local t = now()
  local v, since, last, asked = string.match(redis.call('HGET', k[1], 'gone') or '', '^(%d+)|(%d+)|(%d+)|(%d+)$')
  if v ~= version or t - tonumber(last) > GONE_BREAK_MS then since, asked = t, 0 end
  if t - tonumber(asked) >= GONE_ASK_MS then
    asked = t
    local nodes, job = redis.call('SMEMBERS', 'trib:nodes'), string.match(k[1], '{(.-)}')
    for i = 1, #nodes do redis.call('PUBLISH', 'trib:wake', 'carry ' .. job .. ' ' .. version .. ' ' .. nodes[i]) end
  end
  redis.call('HSET', k[1], 'gone', string.format('%s|%.0f|%.0f|%.0f', version, since, t, asked))
  return tonumber(since) + wait - t
end

-- What was in versions after u, until v, is in no model any more. -> updates
local function gone_updates(k, u, v)
  local p, lost = prefix(k[1]), 0
  for x = u + 1, v do
    local n = string.match(redis.call('HGET', p .. 'models', x) or '', '^[^|]*|[^|]*|(%d+)|')
    local r = n and redis.call('HMGET', p .. 'r:' .. n, 'version', 'acc') or {}
    if r[1] == string.format('%d', x) then              -- not one that has an older one's bytes
      lost = lost + tonumber(r[2])
      redis.call('HSET', p .. 'r:' .. n, 'why', 'model-lost')
    end
  end
  return lost
end

local function gone_back(k, j, v, u, node)
  local p, w, t = prefix(k[1]), v + 1, now()
  local record, lost = redis.call('HGET', p .. 'models', u), redis.call('HGET', p .. 'models', v)
  local digest, bytes, n, metrics = string.match(record, '^([^|]*)|([^|]*)|(%d+)|%d+|?(.*)$')
  local count = gone_updates(k, u, v)
  local why = string.format('no node has version %d any more (killed before its file was written); version %d is version %d again',
    v, w, u)
  redis.call('HSET', p .. 'models', w, table.concat({digest, bytes, n, t, metrics}, '|'))
  redis.call('HSET', p .. 'pin', u, t + PIN_MS)          -- until its copies are made
  redis.call('HDEL', p .. 'models', v)
  redis.call('HDEL', p .. 'at', v)
  redis.call('ZREM', p .. 'old', v)
  redis.call('HSET', k[1], 'version', w, 'metrics', metrics, 'back', w .. '|' .. u .. '|' .. v, 'reason', why)
  redis.call('HINCRBY', k[1], 'backs', w - u)
  redis.call('HINCRBY', k[1], 'upds', -count)
  redis.call('HDEL', k[1], 'gone', 'stopwhy')
  local best = string.match(redis.call('HGET', k[1], 'ckbest') or '', '|(%d+)$')
  if best and tonumber(best) > u then redis.call('HDEL', k[1], 'ckbest') end
  for r = tonumber(j[3]) + 1, tonumber(j[4]) do
    local key = p .. 'r:' .. r
    local state, ends = unpack(redis.call('HMGET', key, 'state', 'deadline'))
    if state == 'open' or state == 'closing' then redis.call('HSET', key, 'base', w) end
    if state == 'open' and tonumber(ends) < t + 5000 then redis.call('HSET', key, 'deadline', t + 5000) end
  end
  event(k[1], 't', 'model.lost', 'v', v, 'digest', string.match(lost, '^([^|]*)'), 'fromv', u, 'count', count, 'node', node,
    'why', why)
  event(k[1], 't', 'model.published', 'v', w, 'digest', digest, 'fromv', u, 'metrics', metrics)
  wake(k[1], 'job')
  wake(k[1], 'round')
end

-- A node (that lives) has the version neither in memory nor as a file, and nobody gave it. ARGV version digest node
-- wait_ms; then, of the older version it was told to try: number digest ('' = it cannot be had here either)
-- -> HELD node | LATER ms | TRY older | OK new | SAME new | FROM older (the version is that one's bytes)
-- | NONE (there is no older one) | STALE newest | NOJOB
local function version_gone(k, a)
  local j, p = redis.call('HMGET', k[1], 'state', 'version', 'pubround', 'round', 'back'), prefix(k[1])
  if not j[1] then return {'NOJOB'} end
  local new, of, lost = string.match(j[5] or '', '^(%d+)|(%d+)|(%d+)$')
  if lost == a[1] and new == j[2] then return {'SAME', new} end
  if j[2] ~= a[1] or string.match(redis.call('HGET', p .. 'models', a[1]) or '', '^([^|]*)') ~= a[2] then
    return {'STALE', j[2]}
  end
  if new == a[1] and a[5] == '' then return {'FROM', of} end
  if redis.call('EXISTS', 'trib:node:' .. a[3]) == 0 then return {'LATER', 0} end
  local next = p .. 'r:' .. tonumber(j[3] or '0') + 1
  if redis.call('HGET', next, 'state') == 'closing' and redis.call('HEXISTS', next, 'task') == 1 then
    return {'LATER', 0}                                  -- the version after it is made
  end
  gone_not_at(k, a[1], a[3])
  local held = gone_held(k, a[1], a[3])
  if held then
    redis.call('HDEL', k[1], 'gone')
    return {'HELD', held}
  end
  local left = gone_left(k, a[1], math.max(1000, tonumber(a[4])))
  if left > 0 then return {'LATER', left} end
  local v = tonumber(a[1])
  local u = tonumber(a[5]) or v
  if u < v and a[6] ~= '' and string.match(redis.call('HGET', p .. 'models', u) or '', '^([^|]*)') == a[6] then
    gone_back(k, j, v, u, a[3])
    return {'OK', tostring(v + 1)}
  end
  for x = u - 1, math.max(0, u - GONE_LOOK), -1 do
    if redis.call('HEXISTS', p .. 'models', x) == 1 then return {'TRY', tostring(x)} end
  end
  return {'NONE'}
end

redis.register_function('trib_version_gone', version_gone)
end
