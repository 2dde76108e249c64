-- SPDX-License-Identifier: Apache-2.0
-- ---- several nodes: who gathers a round, whose sum went where, where a model's file lies ----
-- Fields of a round beside n:<node> (updates that this node's memory answers for):
--   w:<node>               their weight
--   top                    the node that gathers, elected when the closed round is first asked for
--   moves, m:<from>|<boot>|<part> = '<to>|<to_boot>|<updates>|<weight>|<upto>|<seq>': a sum that went over to `to`. Its
--                          updates are those committed in that memory until `upto` (the ms when the round closed), and
--                          what had been moved there before
--   s:<from>               '<boot>|<updates>|<weight>|<ms>': since when the share of a node that drains has been so
-- Moves go to the round's present top: when it is lost they are undone. A top that drains hands over what it has, with
-- what it was given; if that is undone while it is gone, what it was given is its senders' again.
-- Key :at   hash   version -> nodes that have its file, 'n1,n2'
local COPY_WAIT_MS = 3000     -- a new version waits so long for its file to be on a second node

local function node_lives(k, node)
  local boot = redis.call('HGET', k[1], 'b:' .. node)
  return boot and boot ~= '' and redis.call('EXISTS', 'trib:node:' .. node) == 1
end

local function moves_of(base)
  local moves = {}
  if redis.call('HEXISTS', base, 'moves') == 0 then return moves end
  local all = redis.call('HGETALL', base)
  for i = 1, #all, 2 do
    local from, boot, part = string.match(all[i], '^m:([^|]*)|([^|]*)|(.*)$')
    if from then
      local to, to_boot, n, w, upto, seq = string.match(all[i + 1], '^([^|]*)|([^|]*)|(%d+)|(%d+)|(%d+)|(%d+)$')
      moves[#moves + 1] = {field = all[i], from = from, boot = boot, part = part, to = to, to_boot = to_boot, n = n,
        w = w, upto = tonumber(upto), seq = seq}
    end
  end
  return moves
end

-- The live node with the most counted updates (the fewest bytes cross the network), ties by name. `caller` lives. One
-- that is to leave only if there is no other.
local function elect_top(k, base, caller)
  local all, best, most, stays = redis.call('HGETALL', base), nil, 0, false
  for i = 1, #all, 2 do
    local node, n = string.match(all[i], '^n:(.+)$'), tonumber(all[i + 1])
    if node and n > 0 and (node == caller or node_lives(k, node)) then
      local keeps = not draining(node)
      if (keeps and not stays) or (keeps == stays and (n > most or (n == most and node < best))) then
        best, most, stays = node, n, keeps
      end
    end
  end
  if best then redis.call('HSET', base, 'top', best) end
  return best or ''
end

-- Of an open round: a node that drains has its share closed, and a top that stays. True when it has, or had, a share.
local function share_closed(base, node, moves)
  local r, from = redis.call('HMGET', base, 'top', 'n:' .. node), false
  for i = 1, #moves do from = from or moves[i].from == node end
  if not from and tonumber(r[2] or '0') == 0 then return false end
  local top = r[1] or ''
  if top == '' or draining(top) or redis.call('EXISTS', 'trib:node:' .. top) == 0 then
    top = heir(base)
    if top then redis.call('HSET', base, 'top', top) end
  end
  return top ~= nil or from
end

-- What the agent of `node` must know beside its counts: top, its URL, weight on the node, boot that lives there, task,
-- the moves from and to the node ('from|boot|part|to|to_boot|updates|weight|upto|seq ...'), the state as it is for it
local function sync_nodes(k, base, node)
  local moves, state = moves_of(base), nil
  if draining(node) and redis.call('HGET', base, 'state') == 'open' and share_closed(base, node, moves) then
    state = 'closing'
  end
  local r = redis.call('HMGET', base, 'state', 'top', 'w:' .. node, 'task')
  local top, text = r[2] or '', {}
  if r[1] == 'closing' and top == '' then top = elect_top(k, base, node) end
  for i = 1, #moves do
    local m = moves[i]
    if m.from == node or m.to == node then
      text[#text + 1] = table.concat({m.from, m.boot, m.part, m.to, m.to_boot, m.n, m.w, m.upto, m.seq}, '|')
    end
  end
  local url = top ~= '' and redis.call('HGET', 'trib:node:' .. top, 'url') or ''
  return top, url, r[3] or '0', redis.call('HGET', k[1], 'b:' .. node) or '', r[4] or '', table.concat(text, ' '),
    state or r[1] or ''
end

-- Since when (ms) the share of a node that drains has been what the sender says: all of it was committed by then, and
-- nothing since. Settled once that ms is over, as `closed` is for a round.
local function share_since(base, a)
  local text = table.concat({a[3], a[7], a[8]}, '|') .. '|'
  local had = redis.call('HGET', base, 's:' .. a[2]) or ''
  if string.sub(had, 1, #text) == text then return string.sub(had, #text + 1) end
  local t = now()
  redis.call('HSET', base, 's:' .. a[2], text .. t)
  return t
end

-- Before the receiver of a sum answers: from now on it, and no more the sender, answers for these updates.
-- ARGV round from from_boot part to to_boot updates weight
-- -> OK seq | SAME seq | TAKEN to | STATE s | TOP node | GONE node | COUNT n w | LATER | NOJOB
local function partial_moved(k, a)
  local base, field = prefix(k[1]) .. 'r:' .. a[1], 'm:' .. a[2] .. '|' .. a[3] .. '|' .. a[4]
  local r = redis.call('HMGET', base, 'state', 'top', 'n:' .. a[2], 'w:' .. a[2], 'closed', 'task', field)
  if not r[1] then return {'NOJOB'} end
  if r[7] then
    local same = table.concat({a[5], a[6], a[7], a[8]}, '|') .. '|'
    if string.sub(r[7], 1, #same) == same then return {'SAME', string.match(r[7], '|(%d+)$')} end
    return {'TAKEN', (string.match(r[7], '^([^|]*)'))}
  end
  local early = r[1] == 'open' and draining(a[2])
  if (r[1] ~= 'closing' and not early) or r[6] then return {'STATE', r[6] and 'done' or r[1]} end
  if r[2] ~= a[5] or a[2] == a[5] then return {'TOP', r[2] or ''} end
  local boots = redis.call('HMGET', k[1], 'b:' .. a[2], 'b:' .. a[5])
  if boots[1] ~= a[3] then return {'GONE', a[2]} end
  if boots[2] ~= a[6] then return {'GONE', a[5]} end
  if r[3] ~= a[7] or r[4] ~= a[8] then return {'COUNT', r[3] or '0', r[4] or '0'} end
  local upto = early and share_since(base, a) or r[5]
  if now() <= tonumber(upto) + 1 then return {'LATER'} end     -- `upto` must part what is in it from what comes after
  local seq = redis.call('HINCRBY', base, 'moves', 1)
  redis.call('HSET', base, field, table.concat({a[5], a[6], a[7], a[8], upto, seq}, '|'), 'n:' .. a[2], 0,
    'w:' .. a[2], 0)
  redis.call('HDEL', base, 's:' .. a[2])
  redis.call('HINCRBY', base, 'n:' .. a[5], a[7])
  redis.call('HINCRBY', base, 'w:' .. a[5], a[8])
  event(k[1], 't', 'partial.moved', 'n', a[1], 'from', a[2], 'node', a[5], 'updates', a[7])
  return {'OK', tostring(seq)}
end

-- The memory of `node` (but that of boot `lives`) is gone: moves to it are undone where the sender still has the sum.
-- -> {{boot, until}..}: of its own memories, what went over before; {{node, boot, since, until}..}: sums that were in it
-- and are nowhere else (52_lost tells from these whether an update is lost)
local function lost_with(k, base, node, lives)
  local moves, on, spans, kept = moves_of(base), {}, {}, {}
  table.sort(moves, function(x, y) return tonumber(x.seq) < tonumber(y.seq) end)
  for i = 1, #moves do
    local m = moves[i]
    local memory = m.from .. ':' .. m.boot
    m.seq, m.into = tonumber(m.seq), m.to .. ':' .. m.to_boot
    m.since = spans[memory] or 0              -- commits of these ms: after `since`, until `upto`
    spans[memory], on[memory] = m.upto, m.seq
  end
  local dead = {}
  local function back(m)
    m.undone = true
    redis.call('HDEL', base, m.field)
    if redis.call('HGET', k[1], 'b:' .. m.from) == m.boot then
      redis.call('HINCRBY', base, 'n:' .. m.from, m.n)
      redis.call('HINCRBY', base, 'w:' .. m.from, m.w)
      return
    end
    dead[#dead + 1] = m
    for i = 1, #moves do                       -- what it was given before, its senders may have yet
      local g = moves[i]
      if g.into == m.from .. ':' .. m.boot and g.seq < m.seq and not g.undone then back(g) end
    end
  end
  for i = 1, #moves do
    local m = moves[i]
    if m.to == node and m.to_boot ~= lives and not m.undone and (on[m.into] or 0) < m.seq then
      redis.call('HINCRBY', base, 'n:' .. node, '-' .. m.n)
      redis.call('HINCRBY', base, 'w:' .. node, '-' .. m.w)
      back(m)
    end
  end
  for i = 1, #moves do
    local m = moves[i]
    if m.from == node and m.boot ~= lives and not m.undone then kept[#kept + 1] = {m.boot, m.upto} end
  end
  for i = 1, #dead do dead[i] = {dead[i].from, dead[i].boot, dead[i].since, dead[i].upto} end
  redis.call('HDEL', base, 's:' .. node)
  if redis.call('HGET', base, 'top') == node then redis.call('HDEL', base, 'top') end
  return kept, dead
end

-- Whose memory of this job lives on the node ('' = nobody's).
local function node_memory(k, node, boot)
  local had = redis.call('HGET', k[1], 'b:' .. node) or ''
  redis.call('HSET', k[1], 'b:' .. node, boot)
  if had ~= boot then event(k[1], 't', boot == '' and 'node.lost' or 'node.up', 'node', node) end
end

-- An update is lost: whose sum was it in? (n and w of a sum that had moved were settled with the move)
local function uncount(base, node, place, w)
  if string.sub(place, 1, #node + 1) == node .. ':' then
    redis.call('HINCRBY', base, 'n:' .. node, -1)
    redis.call('HINCRBY', base, 'w:' .. node, '-' .. w)
  end
end

-- ---- model files ----
local function model_at(k, version, node)
  local at = prefix(k[1]) .. 'at'
  local have = redis.call('HGET', at, version) or ''
  if string.find(',' .. have .. ',', ',' .. node .. ',', 1, true) then return false end
  redis.call('HSET', at, version, have == '' and node or have .. ',' .. node)
  return true
end

local function copies(version, k, except)
  local n = 0
  for node in string.gmatch(redis.call('HGET', prefix(k[1]) .. 'at', version) or '', '[^,]+') do
    if node ~= except and redis.call('EXISTS', 'trib:node:' .. node) == 1 then n = n + 1 end
  end
  return n
end

-- The model of the round is made, its only file was on a node that is lost for good: it must be made again.
local function model_gone(k, base, a)
  local r = redis.call('HMGET', base, 'tasknode', 'base')
  local version = tonumber(r[2] or '0') + 1
  if a[3] ~= '' or r[1] ~= a[2] or copies(version, k, a[2]) > 0 then return false end
  redis.call('HDEL', base, 'task', 'tasknode', 'taskms')
  redis.call('HDEL', prefix(k[1]) .. 'at', version)
  return true
end

-- Shall the publication wait until the file is on a second node of the job? -> ms still to wait, or nil. A node that
-- let such a wait run out (it may have begun anew and not know of the job) is waited for again when it has told of a file.
local function copy_wait(k, base, version)
  local r = redis.call('HMGET', base, 'tasknode', 'taskms')
  if not r[1] or copies(version, k, r[1]) > 0 then return nil end
  local left = tonumber(r[2]) + COPY_WAIT_MS - now()
  local nodes = redis.call('SMEMBERS', 'trib:nodes')
  for i = 1, #nodes do
    if nodes[i] ~= r[1] and node_lives(k, nodes[i]) and redis.call('HEXISTS', k[1], 'nocopy:' .. nodes[i]) == 0 then
      if left > 0 then return left end
      redis.call('HSET', k[1], 'nocopy:' .. nodes[i], version)
    end
  end
  return nil
end

-- This node has the file of a version. ARGV version node -> OK | SAME | NOJOB
local function model_at_node(k, a)
  if redis.call('EXISTS', k[1]) == 0 then return {'NOJOB'} end
  redis.call('HDEL', k[1], 'nocopy:' .. a[2])
  local first = redis.call('HGET', prefix(k[1]) .. 'at', a[1])
  if string.match(redis.call('HGET', k[1], 'gone') or '', '^%d+') == a[1] then redis.call('HDEL', k[1], 'gone') end
  if not model_at(k, a[1], a[2]) then return {'SAME'} end
  if first and not string.find(first, ',', 1, true) then wake(k[1], 'copied') end     -- the leader may wait for it
  return {'OK'}
end

-- Where a version's file can be had. ARGV version node(asking) -> digest bytes url .. | NONE | NOJOB. The version of a
-- round whose model is made but not published yet is among them.
local function model_where(k, a)
  local j = redis.call('HMGET', k[1], 'state', 'bytes', 'pubround')
  if not j[1] then return {'NOJOB'} end
  local have, digest, bytes = redis.call('HGET', prefix(k[1]) .. 'models', a[1]), nil, nil
  if have then
    digest, bytes = string.match(have, '^([^|]*)|(%d+)')
  else
    local r = redis.call('HMGET', prefix(k[1]) .. 'r:' .. (tonumber(j[3] or '0') + 1), 'task', 'base')
    if r[1] and tonumber(r[2]) + 1 == tonumber(a[1]) then digest, bytes = r[1], j[2] end
  end
  if not digest then return {'NONE'} end
  local out, tried = {digest, bytes}, {[a[2]] = true}
  local function add(node)
    local url = not tried[node] and redis.call('HGET', 'trib:node:' .. node, 'url')
    tried[node] = true
    if url and url ~= '' and #out < 8 then out[#out + 1] = url end
  end
  for node in string.gmatch(redis.call('HGET', prefix(k[1]) .. 'at', a[1]) or '', '[^,]+') do add(node) end
  if #out == 2 then
    local nodes, start = redis.call('SMEMBERS', 'trib:nodes'), now()        -- not the same ones whenever it is asked
    for i = 1, #nodes do add(nodes[(start + i) % #nodes + 1]) end
  end
  return out
end

redis.register_function('trib_partial_moved', partial_moved)
redis.register_function('trib_model_at', model_at_node)
redis.register_function('trib_model_where', model_where)
