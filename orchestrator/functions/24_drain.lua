-- SPDX-License-Identifier: Apache-2.0
-- ---- nodes that are to leave in order ----
-- Key trib:nodes:draining hash: node -> '<word>|<ms when it began>', word: draining, drained (nothing is there any more),
-- leaving (its agent ended). Field drain of trib:node:<n>: the same word. Such a node's share of an open round is closed
-- by itself and its sum goes to another node (sync_nodes, partial_moved in 25_nodes.lua).
local DRAINING = 'trib:nodes:draining'

local function draining(node) return redis.call('HEXISTS', DRAINING, node) == 1 end

-- -> list of {name, url} of the nodes that live and stay, by name
local function staying()
  local out, nodes = {}, redis.call('SMEMBERS', 'trib:nodes')
  table.sort(nodes)
  for i = 1, #nodes do
    local url = not draining(nodes[i]) and redis.call('HGET', 'trib:node:' .. nodes[i], 'url')
    if url and url ~= '' then out[#out + 1] = {nodes[i], url} end
  end
  return out
end

-- Who takes the share of a node that leaves: the one with the most updates of the round. nil: nobody is left.
local function heir(base)
  local best, most = nil, -1
  for _, n in ipairs(staying()) do
    local count = tonumber(redis.call('HGET', base, 'n:' .. n[1]) or '0')
    if count > most then best, most = n[1], count end
  end
  return best
end

-- KEYS trib:nodes:draining ; ARGV node undo(0/1) -> OK | SAME word | ALONE (no other node is up) | NONODE
local function node_drain(k, a)
  local key, had = 'trib:node:' .. a[1], redis.call('HGET', k[1], a[1])
  if redis.call('EXISTS', key) == 0 then return {'NONODE'} end
  if (had ~= false) == (a[2] ~= '1') then return {'SAME', had and string.match(had, '^%a+') or ''} end
  if a[2] == '1' then
    redis.call('HDEL', k[1], a[1])
    redis.call('HSET', key, 'drain', '')
  else
    local others = staying()
    if #others == 0 or (#others == 1 and others[1][1] == a[1]) then return {'ALONE'} end
    redis.call('HSET', k[1], a[1], 'draining|' .. now())
    redis.call('HSET', key, 'drain', 'draining')
  end
  redis.call('PUBLISH', 'trib:wake', 'drain ' .. a[1])
  return {'OK'}
end

-- Its agent's: nothing is there any more, or something is again; it ends. KEYS trib:nodes:draining ; ARGV node word
local function node_drained(k, a)
  local had = redis.call('HGET', k[1], a[1])
  if not had then return {'NOOP'} end
  redis.call('HSET', k[1], a[1], a[2] .. string.match(had, '|.*$'))
  if a[2] == 'leaving' then
    redis.call('DEL', 'trib:node:' .. a[1])           -- the leader sees to the rest: trib_node_silent
  elseif redis.call('EXISTS', 'trib:node:' .. a[1]) == 1 then
    redis.call('HSET', 'trib:node:' .. a[1], 'drain', a[2])
  end
  return {'OK'}
end

-- Of a heartbeat: whoever comes up under the name of one that left is new. -> 2 if it drains, else 0
local function drain_beat(node)
  local word = string.match(redis.call('HGET', DRAINING, node) or '', '^%a+')
  if word == 'leaving' then
    redis.call('HDEL', DRAINING, node)
    word = nil
  end
  redis.call('HSET', 'trib:node:' .. node, 'drain', word or '')
  return word and 2 or 0
end

-- KEYS trib:node:<n> ; ARGV node ttl_ms field value ... (agent heartbeat) -> 1 if it is new, + 2 if it drains
local function node_up(k, a)
  redis.call('SADD', 'trib:nodes', a[1])
  redis.call('SREM', 'trib:nodes:lost', a[1])
  local fresh = redis.call('EXISTS', k[1]) == 0
  local f = {}
  for i = 3, #a do f[#f + 1] = a[i] end
  redis.call('HSET', k[1], unpack(f))
  redis.call('PEXPIRE', k[1], a[2])
  return (fresh and 1 or 0) + drain_beat(a[1])
end

redis.register_function('trib_node_up', node_up)
redis.register_function('trib_node_drain', node_drain)
redis.register_function('trib_node_drained', node_drained)
