-- SPDX-License-Identifier: Apache-2.0
-- ---- AFA-CS: every client's last update goes into every version (async.memory: all) ----
--   mem on the job: clients in memory at most
--   :mem  hash  client -> 'n|base|id|ms|digest|counted|place' of its last counted update (n: the buffer that it came in);
--               '' = it has been given a place and has not reported
--   kept on a round: how many of its updates are of earlier buffers. They are in its :upd as all others, and in :late with
--               the buffer that they came in, so that the record says what is in a version
-- When a buffer closes no later one is open: what is in :mem then is what it is made of. An update stays in its slot
-- until one of the same client has taken its place and no buffer that it is in waits any more.
local memory = {}

function memory.entry(text)
  local n, base, id, ms, dg, w, place = string.match(text, '^(%d+)|(%d+)|([^|]*)|(%d+)|([^|]*)|([^|]*)|(.*)$')
  return n and {n = tonumber(n), base = base, id = id, ms = ms, digest = dg, weight = w, place = place}
end

-- Is there room for the client's update?
function memory.room(k, j, client)
  local key = prefix(k[1]) .. 'mem'
  return redis.call('HEXISTS', key, client) == 1 or redis.call('HLEN', key) < tonumber(j.mem)
end

function memory.put(k, j, client, n, base, id, t, digest, counted, place)
  if not j.mem then return end
  redis.call('HSET', prefix(k[1]) .. 'mem', client,
    n .. '|' .. base .. '|' .. id .. '|' .. t .. '|' .. digest .. '|' .. counted .. '|' .. place)
end

-- Buffer n closes: the updates of clients that have not reported in it are in it as well.
function memory.close(k, r, n, t)
  if redis.call('HEXISTS', k[1], 'mem') == 0 then return end
  local p, kept, sum, at = prefix(k[1]), 0, 0, {}
  local all = redis.call('HGETALL', p .. 'mem')
  for i = 1, #all, 2 do
    local e = memory.entry(all[i + 1])
    local node = e and string.match(e.place, '^([^:]*):')
    if not e then                                                -- whose place has ended makes room
      if tonumber(redis.call('ZSCORE', p .. 'infl', all[i]) or '0') <= t then redis.call('HDEL', p .. 'mem', all[i]) end
    elseif e.n < tonumber(n) and place_gone(k, e.place, node) then
      redis.call('HDEL', p .. 'mem', all[i])
    elseif e.n < tonumber(n) then
      redis.call('HSET', r .. ':upd', all[i] .. '@' .. e.base,
        'C|' .. e.id .. '|' .. e.ms .. '|' .. e.digest .. '|' .. e.weight .. '|' .. e.place)
      redis.call('HSET', r .. ':late', all[i] .. '@' .. e.base, e.n .. '|' .. e.id .. '|' .. e.weight)
      local had = at[node] or {n = 0, w = 0}
      at[node] = {n = had.n + 1, w = had.w + tonumber(e.weight)}
      kept, sum = kept + 1, sum + tonumber(e.weight)
      at[#at + 1] = had.n == 0 and node or nil
    end
  end
  for _, node in ipairs(at) do
    redis.call('HINCRBY', r, 'n:' .. node, string.format('%.0f', at[node].n))
    redis.call('HINCRBY', r, 'w:' .. node, string.format('%.0f', at[node].w))
  end
  redis.call('HINCRBY', r, 'acc', kept)
  redis.call('HINCRBY', r, 'wsum', string.format('%.0f', sum))
  redis.call('HINCRBY', r, 'wraw', string.format('%.0f', sum))
  redis.call('HSET', r, 'kept', kept)
end

-- The memory of `node` (but that of boot `lives`) is gone, and with it what its clients sent there.
function memory.lost(k, node, lives)
  local key, lost = prefix(k[1]) .. 'mem', 0
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    local e = memory.entry(all[i + 1])
    local at, boot = string.match(e and e.place or '', '^([^:]*):([^:]*):')
    if at == node and boot ~= lives then
      redis.call('HDEL', key, all[i])
      lost = lost + 1
    end
  end
  if lost > 0 then event(k[1], 't', 'memory.lost', 'node', node, 'updates', lost) end
end

-- What a node must not forget. ARGV node -> {OK, the round to be aggregated, 1 if it is closing, places of it that came in
-- earlier buffers: 'slot:gen ..', all places that are needed} | NOJOB. Of a place in a buffer that is open it need not tell.
local function memory_of(k, a)
  local j = redis.call('HMGET', k[1], 'round', 'pubround')
  if not j[1] then return {'NOJOB'} end
  local p, last = prefix(k[1]), tonumber(j[1])
  local work, boot = math.min(tonumber(j[2] or '0') + 1, last), redis.call('HGET', k[1], 'b:' .. a[1]) or ''
  local start, again, needed = a[1] .. ':' .. boot .. ':', {}, {}
  local function here(place)
    return string.sub(place, 1, #start) == start and string.sub(place, #start + 1)
  end
  for n = work, last do
    local all = redis.call('HVALS', p .. 'r:' .. n .. ':upd')
    for i = 1, #all do
      local slot = here(string.match(all[i], '^C|[^|]*|%d+|[^|]*|[^|]*|(.*)$') or '')
      if slot then
        needed[#needed + 1] = slot
        if n == work then again[#again + 1] = slot end
      end
    end
  end
  local all = redis.call('HVALS', p .. 'mem')
  for i = 1, #all do
    local slot = here((memory.entry(all[i]) or {place = ''}).place)
    if slot then needed[#needed + 1] = slot end
  end
  local closing = redis.call('HGET', p .. 'r:' .. work, 'state') == 'closing' and 1 or 0
  return {'OK', work, closing, closing == 1 and table.concat(again, ' ') or '', table.concat(needed, ' ')}
end

redis.register_function('trib_memory_of', memory_of)
