-- SPDX-License-Identifier: Apache-2.0
do     -- a chunk of Lua has room for 200 local names: these are of this file alone
-- ---- a node's shared memory of a job is gone: its committed updates are declared lost, their clients may report again ----
-- A call looks at LOST_PAGE records at most; its caller calls again until nothing is left. Meanwhile the node's memory is
-- not of the job any more (commits into it are refused), and the rounds concerned neither close nor get a model.
--   on the job:  lose:<node> 1 while that goes on
--   on a round:  losing how many nodes are being taken out; l:<node> how far: JSON {c: cursor of :upd, run: of this Redis,
--                kept: {{boot, until}..}, dead: {{node, boot, since, until}..}} (25_nodes: sums that had moved)
--   trib:losing  set of '<job>|<node>': for the leader, when the caller is gone
local LOST_PAGE = 500

-- A cursor means nothing to another process.
local function this_redis() return string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') or '' end

local function rounds_of(j, n)
  if j.mode ~= 'async' and not j.switched then return tonumber(n), tonumber(n) end
  return tonumber(j.pubround) + 1, tonumber(j.round)
end

-- Once, before any record is looked at: moves to the node are undone, and what follows from those that are not is kept.
local function lose_begin(k, a, j)
  local node, state = a[2], 'none'
  if j.mem then memory.lost(k, node, a[3]) end
  local from, to = rounds_of(j, a[1])
  for n = from, to do
    local r = prefix(k[1]) .. 'r:' .. n
    local st = redis.call('HGET', r, 'state')
    local over = st ~= 'open' and st ~= 'closing'
    local done = not over and redis.call('HEXISTS', r, 'task') == 1 and not model_gone(k, r, a)  -- its model file is written
    state = over and (st or 'none') or done and 'done' or 'OK'
    if state == 'OK' then
      local kept, dead = lost_with(k, r, node, a[3])
      local had = redis.call('HGET', r, 'l:' .. node)
      if had then
        local before = cjson.decode(had)
        for i = 1, #before.kept do kept[#kept + 1] = before.kept[i] end
        for i = 1, #before.dead do dead[#dead + 1] = before.dead[i] end
      elseif j.mem or #dead > 0 or tonumber(redis.call('HGET', r, 'n:' .. node) or '0') > 0 then   -- else there is nothing
        redis.call('HINCRBY', r, 'losing', 1)
        had = true
      end
      if had then
        redis.call('HSET', r, 'l:' .. node, cjson.encode({c = '0', run = this_redis(), kept = kept, dead = dead}))
      end
    end
  end
  redis.call('HSET', k[1], 'lose:' .. node, 1)
  redis.call('SADD', 'trib:losing', string.match(k[1], '{(.-)}') .. '|' .. node)
  return state
end

-- Of (place, ms) of a committed update: is it lost?
local function is_lost(l, node, lives, place, ms)
  local at, boot = string.match(place, '^([^:]*):([^:]*):')
  if not at then return false end
  ms = tonumber(ms)
  for i = 1, #l.dead do
    local m = l.dead[i]
    if m[1] == at and m[2] == boot and ms > m[3] and ms <= m[4] then return true end
  end
  if at ~= node or boot == lives then return false end
  for i = 1, #l.kept do
    if l.kept[i][1] == boot and ms <= l.kept[i][2] then return false end
  end
  return true
end

-- -> true when it was lost before (memory.lost has said so), and came in an earlier buffer
local function lose_row(k, j, r, n, node, field, id, w, place)
  local p, client = prefix(k[1]), string.match(field, '^(.*)@%d+$')
  local from = j.mem and string.match(redis.call('HGET', r .. ':late', field) or '', '^(%d+)|')
  local raw = w
  if not client then                                              -- of a synchronous round
    raw = lose_place(k, r, field, id, w)
  else
    local c = committed(redis.call('HGET', p .. 'aupd', client) or '')
    if c and c.id == id then redis.call('HDEL', p .. 'aupd', client) end
    raw = string.match(redis.call('HGET', r .. ':late', field) or '', '|(%d+)$') or raw
    redis.call('HDEL', r .. ':late', field)
    redis.call('HDEL', r .. ':upd', field)
  end
  taken_out(k, r, node, place, client or field, id, w, raw)
  if from and tonumber(from) < n then return true end
  event(k[1], 't', 'update.lost', 'n', n, 'update', id, 'node', node)
  return false
end

local function lose_settle(k, j, r, n, here, kept)
  if kept > 0 then redis.call('HINCRBY', r, 'kept', -kept) end
  if here + kept == 0 then return end
  local left = redis.call('HINCRBY', r, 'acc', -here - kept)
  redis.call('HINCRBY', r, 'lost', here)
  goes_on(k, j, r, n, left, 'lost')
end

-- All of the round's records have been looked at.
local function lose_end(k, j, r, n, node)
  redis.call('HDEL', r, 'l:' .. node)
  if redis.call('HINCRBY', r, 'losing', -1) > 0 then return end
  redis.call('HDEL', r, 'losing')
  local v = redis.call('HMGET', r, 'state', 'acc', 'goal')
  if v[1] == 'open' and tonumber(v[2]) >= tonumber(v[3]) then        -- it was not closed while that went on
    close_full(k, j, tostring(n), tonumber(v[2]), now())
  end
  wake(k[1], v[1] == 'closing' and 'moved' or 'round')               -- (sums may go to another top)
end

-- One page of one round -> records looked at, updates lost
local function lose_page(k, j, r, n, node, page)
  local l = cjson.decode(redis.call('HGET', r, 'l:' .. node))
  local lives, run = redis.call('HGET', k[1], 'b:' .. node) or '', this_redis()
  if l.run ~= run then l.run, l.c = run, '0' end
  local found = redis.call('HSCAN', r .. ':upd', l.c, 'COUNT', page)
  local rows, here, kept, seen = found[2], 0, 0, {}
  for i = 1, #rows, 2 do
    local id, ms, _, w, place = string.match(rows[i + 1], '^C|([^|]*)|(%d+)|([^|]*)|([^|]*)|(.*)$')
    if id and not seen[rows[i]] and is_lost(l, node, lives, place, ms) then
      seen[rows[i]] = true
      if lose_row(k, j, r, n, node, rows[i], id, w, place) then kept = kept + 1 else here = here + 1 end
    end
  end
  lose_settle(k, j, r, n, here, kept)
  l.c = found[1]
  if l.c == '0' then lose_end(k, j, r, n, node) else redis.call('HSET', r, 'l:' .. node, cjson.encode(l)) end
  return math.max(1, #rows / 2), here
end

-- Goes on for `page` records -> OK lost | MORE lost, and how many were looked at
local function lose_on(k, j, node, page)
  local lost, looked, p = 0, 0, prefix(k[1])
  for n = tonumber(j.pubround) + 1, tonumber(j.round) do
    local r = p .. 'r:' .. n
    while redis.call('HEXISTS', r, 'l:' .. node) == 1 do
      if looked >= page then return {'MORE', lost}, looked end
      local some, here = lose_page(k, j, r, n, node, page - looked)
      looked, lost = looked + some, lost + here
    end
  end
  redis.call('HDEL', k[1], 'lose:' .. node)
  redis.call('SREM', 'trib:losing', string.match(k[1], '{(.-)}') .. '|' .. node)
  return {'OK', lost}, looked
end

-- ARGV n node boot_that_lives ('' = none) [page] -> OK lost | MORE lost (go on with trib_node_lost_more) | NOOP state
-- ('done': the model file was reported before, so nothing is lost)
local function node_lost(k, a)
  local j = job_of(k)
  if not j.state then return {'NOOP', 'nojob'}, 0 end
  node_memory(k, a[2], a[3])
  local state = lose_begin(k, a, j)
  local answer, looked = lose_on(k, j, a[2], tonumber(a[4] or LOST_PAGE))
  if state ~= 'OK' and j.mode ~= 'async' and not j.switched then return {'NOOP', state}, looked end
  if j.mem and answer[1] == 'OK' then wake(k[1], 'round') end
  return answer, looked
end

-- ARGV node [page] -> OK lost | MORE lost | NOJOB
local function node_lost_more(k, a)
  local j = job_of(k)
  if not j.state then
    redis.call('SREM', 'trib:losing', string.match(k[1], '{(.-)}') .. '|' .. a[1])
    return {'NOJOB'}, 0
  end
  return lose_on(k, j, a[1], tonumber(a[2] or LOST_PAGE))
end

-- The leader's: the nodes whose heartbeat has ended and of whom nobody has seen to it. KEYS trib:nodes -> {node ..}.
-- Of what somebody began and did not end, a page.
local function nodes_silent(k, a)
  local out, nodes = {}, redis.call('SMEMBERS', k[1])
  for i = 1, #nodes do
    if redis.call('EXISTS', 'trib:node:' .. nodes[i]) == 0 and redis.call('SISMEMBER', 'trib:nodes:lost', nodes[i]) == 0 then
      out[#out + 1] = nodes[i]
    end
  end
  local id, node = string.match(redis.call('SRANDMEMBER', 'trib:losing') or '', '^([^|]*)|(.*)$')
  if id then node_lost_more({'trib:{' .. id .. '}:job'}, {node}) end
  return out
end

-- A silent node's memory is declared lost in a page of the jobs. KEYS trib:jobs ; ARGV node offset count found(on the
-- pages before) -> jobs looked at, updates lost, jobs found | LIVES. A walk that finds none ends it for good.
local function node_silent(k, a)
  if redis.call('EXISTS', 'trib:node:' .. a[1]) == 1 then return {'LIVES'} end
  local ids, lost, found = redis.call('ZRANGE', k[1], a[2], tonumber(a[2]) + tonumber(a[3]) - 1), 0, 0
  local left = LOST_PAGE
  for i = 1, #ids do
    local job, answer, looked = 'trib:{' .. ids[i] .. '}:job', nil, 0
    local boot = redis.call('HGET', job, 'b:' .. a[1])
    local lives, begun = boot and boot ~= '', redis.call('HEXISTS', job, 'lose:' .. a[1]) == 1
    if lives or begun then
      found = found + 1
      if lives then                             -- at once in all of them: nothing more is committed there
        answer, looked = node_lost({job}, {redis.call('HGET', job, 'round'), a[1], '', math.max(1, left)})
      elseif left > 0 then
        answer, looked = node_lost_more({job}, {a[1], left})
      end
      left = left - looked
      if answer and type(answer[2]) == 'number' then lost = lost + answer[2] end
    end
  end
  if #ids < tonumber(a[3]) and found + tonumber(a[4]) == 0 then
    local leaves = string.match(redis.call('HGET', DRAINING, a[1]) or '', '^leaving|')
    redis.call('HDEL', DRAINING, a[1])
    if leaves then redis.call('SREM', 'trib:nodes', a[1]) else redis.call('SADD', 'trib:nodes:lost', a[1]) end
  end
  return {#ids, lost, found}
end

redis.register_function('trib_nodes_silent', nodes_silent)
redis.register_function('trib_node_silent', node_silent)
redis.register_function('trib_node_lost', function(k, a) return (node_lost(k, a)) end)
redis.register_function('trib_node_lost_more', function(k, a) return (node_lost_more(k, a)) end)
end
