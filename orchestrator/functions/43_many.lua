-- SPDX-License-Identifier: Apache-2.0
do     -- a chunk of Lua has room for 200 local names: these are of this file alone
-- ---- many check-ins, or many commits, of a job in one call (ADR 13) ----
-- ARGV: those of one call after the other -> their answers, in order. What is plain is gathered and written together;
-- what is not is done alone by the function for one, after what came before it has been written. So the records and the
-- answers are those of as many calls of one, at one instant.
local COMMIT_WORDS, CHECKIN_WORDS = 9, 5
local EXACT = 2 ^ 53          -- whole numbers up to here are exact

-- gather(k, a, from, to, out) answers calls `from` (0 = first) .. to - 1, as many as go together -> how many, true if the
-- one after them has to be done alone
local function in_turn(k, a, words, gather, one)
  local out, n, done = {}, math.floor(#a / words), 0
  local room = n                -- grows and shrinks with what could be gathered: what was read for more is read again
  while done < n do
    local took, alone = gather(k, a, done, math.min(n, done + room), out)
    done = done + took
    if alone and done < n then
      out[done + 1] = one(k, {unpack(a, done * words + 1, done * words + words)})
      done = done + 1
    end
    room = math.max(1, 2 * took)
  end
  return out
end

local function fields_of(key, names, more)
  local list, out = {unpack(names)}, {}
  list[#list + 1] = more
  local v = redis.call('HMGET', key, unpack(list))
  for i = 1, #list do out[list[i]] = v[i] or nil end
  return out
end

local function push(list, x, y)
  list[#list + 1] = x
  list[#list + 1] = y
end

-- Clients of calls from .. to - 1, until one comes twice or one of the words `same` (their numbers) is another.
local function clients_of(a, words, from, to, same)
  local out, seen, first = {}, {}, from * words
  for at = first, (to - 1) * words, words do
    if seen[a[at + 1]] then break end
    for i = 1, #same do
      if a[at + same[i]] ~= a[first + same[i]] then return out end
    end
    seen[a[at + 1]] = true
    out[#out + 1] = a[at + 1]
  end
  return out
end

-- ---- commits ----
local COMMIT_FIELDS = {'state', 'mode', 'switched', 'round', 'version', 'amax', 'afn', 'aalpha', 'ahinge', 'aoff', 'adt',
                       'mem', 'norms', 'bkind', 'balpha', 'selmax'}

-- Place of a client in the open round. -> weight that counts, what it adds to the staleness; nil: not plain
local function take_round(g, a, at, u)
  local s, id = string.match(u or '', '^([SR])|([^|]*)|')
  local t, digest, weight, place = g.text, a[at + 4], a[at + 5], a[at + 6]
  if id ~= a[at + 2] or g.wraw + tonumber(weight) >= EXACT or g.known + #g.last / 2 >= COUNTED_MAX then return nil end
  push(g.upd, a[at + 1], 'C|' .. id .. '|' .. t .. '|' .. digest .. '|' .. weight .. '|' .. place)
  push(g.sel, '+inf', a[at + 1])
  push(g.last, a[at + 1], 'C|' .. id .. '|0|' .. g.n .. '|' .. t .. '|' .. digest .. '|' .. weight .. '|' .. weight .. '|' .. place)
  if s == 'R' then g.inflight = g.inflight + 1 end
  return weight
end

-- The same in the open buffer.
local function take_buffer(g, a, at, u)
  local id, base, since = string.match(u or '', '^[SR]|([^|]*)|%d+|(%d+)|?(%d*)$')
  if id ~= a[at + 2] then return nil end
  local j, t, client, digest, weight, place = g.j, g.text, a[at + 1], a[at + 4], a[at + 5], a[at + 6]
  local tau = tonumber(j.version) - tonumber(base)
  if tau > tonumber(j.amax) then return nil end
  local counted = discounted(j, weight, tau, g.t - (tonumber(since) or g.t))
  if g.wraw + tonumber(weight) >= EXACT or g.wsum + tonumber(counted) >= EXACT then return nil end
  push(g.upd, client .. '@' .. base, 'C|' .. id .. '|' .. t .. '|' .. digest .. '|' .. counted .. '|' .. place)
  push(g.aupd, client, 'C|' .. id .. '|' .. base .. '|' .. g.n .. '|' .. t .. '|' .. digest .. '|' .. weight .. '|' ..
    counted .. '|' .. place)
  memory.put(g.k, j, client, g.n, base, id, t, digest, counted, place)
  if counted ~= weight then push(g.late, client .. '@' .. base, g.n .. '|' .. id .. '|' .. weight) end
  g.tau = g.tau + tau
  return counted, tau
end

-- Sums that Lua can add are written as they are, others are added by Redis.
local function add_sums(g, count)
  local r, v, node = g.r, g.v, g.node
  local wsum, wraw = (tonumber(v.wsum or '0')) + g.wsum, (tonumber(v.wraw or '0')) + g.wraw
  local n, w = tonumber(v['n:' .. node] or '0') + count, tonumber(v['w:' .. node] or '0') + g.wsum
  if wsum < EXACT and wraw < EXACT and w < EXACT then
    redis.call('HSET', r, 'wsum', string.format('%.0f', wsum), 'wraw', string.format('%.0f', wraw), 'n:' .. node, n,
      'w:' .. node, string.format('%.0f', w), 'acc', g.acc + count)
    return
  end
  redis.call('HINCRBY', r, 'wsum', string.format('%.0f', g.wsum))
  redis.call('HINCRBY', r, 'wraw', string.format('%.0f', g.wraw))
  redis.call('HINCRBY', r, 'n:' .. node, count)
  redis.call('HINCRBY', r, 'w:' .. node, string.format('%.0f', g.wsum))
  redis.call('HINCRBY', r, 'acc', count)
end

local function write_commits(g, count, clients, ids)
  redis.call('HSET', g.r .. ':upd', unpack(g.upd))
  if g.async then
    redis.call('HSET', g.p .. 'aupd', unpack(g.aupd))
    redis.call('ZREM', g.p .. 'infl', unpack(clients, 1, count))
    if #g.late > 0 then redis.call('HSET', g.r .. ':late', unpack(g.late)) end
    redis.call('HINCRBY', g.r, 'staleness', g.tau)
  else
    redis.call('ZADD', g.r .. ':sel', unpack(g.sel))
    redis.call('HSET', g.p .. 'last', unpack(g.last))
    if g.inflight > 0 then redis.call('HINCRBY', g.r, 'inflight', -g.inflight) end
  end
  add_sums(g, count)
  redis.call('ZREM', g.p .. 'up', unpack(ids))
end

-- One that is counted: what is not sums of all.
local function count_commit(g, a, at, counted, tau)
  metrics_add(g.r, a[at + 2], a[at + 5], a[at + 8])
  norms.add(g.j, g.r, a[at + 2], counted, a[at + 9])
  if g.async then
    redis.call('XADD', g.p .. 'ev', 'MAXLEN', '~', 10000, '*', 't', 'update.accepted', 'n', g.n, 'update', a[at + 2],
      'staleness', tau)
    return
  end
  return redis.call('XADD', g.p .. 'ev', 'MAXLEN', '~', 10000, '*', 't', 'update.accepted', 'n', g.n, 'update', a[at + 2])
end

-- The goal's last one is not plain: it closes the round.
local function gather_commits(k, a, from, to, out)
  local first = from * COMMIT_WORDS
  local node = a[first + 7]
  local j = fields_of(k[1], COMMIT_FIELDS, 'b:' .. node)
  if (j.state ~= 'running' and j.state ~= 'paused') or j.switched then return 0, true end
  local g = {k = k, j = j, p = prefix(k[1]), node = node, async = j.mode == 'async', t = now(), n = a[first + 3],
             upd = {}, sel = {}, last = {}, aupd = {}, late = {}, tau = 0, inflight = 0, wsum = 0, wraw = 0}
  if g.async then g.n = j.round end
  g.text = tostring(g.t)                 -- numbers are made text once, not for each
  g.r = g.p .. 'r:' .. g.n
  g.v = fields_of(g.r, {'state', 'goal', 'acc', 'wsum', 'wraw', 'w:' .. node}, 'n:' .. node)
  if g.v.state ~= 'open' then return 0, true end
  local clients = clients_of(a, COMMIT_WORDS, from, to, g.async and {7} or {7, 3})
  local u = redis.call('HMGET', g.async and g.p .. 'aupd' or g.r .. ':upd', unpack(clients))
  local take, ids, goal, alone = g.async and take_buffer or take_round, {}, tonumber(g.v.goal), false
  g.acc = tonumber(g.v.acc)
  g.known = g.async and 0 or redis.call('HLEN', g.p .. 'last')
  for i = 1, #clients do
    local at = first + (i - 1) * COMMIT_WORDS
    local weight, lives = tonumber(a[at + 5]), j['b:' .. node]
    local here = not lives or string.match(string.sub(a[at + 6], #node + 1), '^:([^:]*):') == lives
    local counted, tau
    if here and g.acc + i < goal then counted, tau = take(g, a, at, u[i]) end
    alone = not counted
    if alone then break end
    g.wsum, g.wraw, ids[i] = g.wsum + tonumber(counted), g.wraw + weight, a[at + 2]
    count_commit(g, a, at, counted, tau)
    if not g.async then backup.arrived(k, j, g.r, g.acc + i, g.t) end
    out[#out + 1] = {'OK', g.acc + i, g.t, counted, g.n}
  end
  if #ids > 0 then write_commits(g, #ids, clients, ids) end
  return #ids, alone
end

-- ---- check-ins ----
local CHECKIN_FIELDS = {'state', 'version', 'mode', 'drain', 'want', 'sample', 'switched', 'round', 'lease_ms', 'tenant', 'mem',
                        'selmax', 'plan'}

-- WAIT, the same for all at one instant.
local function wait_of(g, why)
  g.waits[why] = g.waits[why] or told_to_wait(g.k, g.r, why, g.t)
  return g.waits[why]
end

local function selected_in(g, base, deadline, id)
  g.selected = g.selected + 1
  return {'SELECTED', g.j.round, base, deadline, id, g.ends}
end

-- A client and the open round. u: its record. -> answer; nil: not plain
local function enter_round(g, client, candidate, u)
  local s, id = string.match(u or '', '^(%a)|([^|]*)|')
  if s == 'C' then return wait_of(g, 'reported') end
  if u and s ~= 'S' and s ~= 'R' then return nil end
  if not u and g.out + g.fresh >= tonumber(g.v.selmax) then
    g.full = g.full or #redis.call('ZRANGEBYSCORE', g.r .. ':sel', '-inf', g.t, 'LIMIT', 0, 1) == 0
    if g.full then return wait_of(g, 'full') end
    return nil
  end
  if not u then g.fresh, id = g.fresh + 1, candidate end
  push(g.sel, g.until_, client)
  if s ~= 'R' then push(g.upd, client, 'S|' .. id .. '|' .. g.until_) end
  if not u then return selected_in(g, g.v.base, g.v.deadline, id) end
  return {'SELECTED', g.j.round, g.v.base, g.v.deadline, id, g.ends}
end

-- The same and the open buffer. place: its lease's end, or false
local function enter_buffer(g, client, candidate, u, place)
  local s, had, exp, from = string.match(u or '', '^(%a)|([^|]*)|(%d+)|(%d+)')
  if u and not s then return nil end
  if s == 'C' and (exp == g.j.version or had == candidate) then return wait_of(g, 'reported') end
  if g.out < 0 then
    redis.call('ZREMRANGEBYSCORE', g.p .. 'infl', '-inf', g.t)
    g.out = redis.call('ZCARD', g.p .. 'infl')
    g.known = redis.call('HLEN', g.p .. 'last')
  end
  local there = place and tonumber(place) > g.t
  if not there and g.out + g.fresh >= tonumber(g.j.selmax) then return wait_of(g, 'full') end
  if s == 'C' and g.known + #g.last / 2 >= COUNTED_MAX then return nil end
  if not there then g.fresh = g.fresh + 1 end
  push(g.sel, g.until_, client)
  if s == 'C' and string.sub(u, -1) ~= QUARANTINED then push(g.last, client, u) end
  if s == 'R' and tonumber(exp) > g.t then return selected_in(g, from, g.until_, had) end
  push(g.upd, client, 'S|' .. candidate .. '|' .. g.until_ .. '|' .. g.j.version .. '|' .. g.text)
  return selected_in(g, g.j.version, g.until_, candidate)
end

local function write_checkins(g)
  if #g.sel > 0 then redis.call('ZADD', g.async and g.p .. 'infl' or g.r .. ':sel', unpack(g.sel)) end
  if #g.upd > 0 then redis.call('HSET', g.async and g.p .. 'aupd' or g.r .. ':upd', unpack(g.upd)) end
  if #g.last > 0 then redis.call('HSET', g.p .. 'last', unpack(g.last)) end
  if g.selected > 0 then redis.call('HINCRBY', g.r, 'selected', g.selected) end
end

-- Are all who come by `node` answered by what is looked at here?
local function plain_job(j, node)
  return j.state == 'running' and j.version ~= '-1' and not (j.drain or j.want or j.sample or j.switched or j.mem) and
    (j.plan or '') == '' and not quota_of(j.tenant or 'default') and (node == '' or not draining(node))
end

local function gather_checkins(k, a, from, to, out)
  local first = from * CHECKIN_WORDS
  local j = fields_of(k[1], CHECKIN_FIELDS)
  if not plain_job(j, a[first + 5]) then return 0, true end
  local g = {k = k, j = j, p = prefix(k[1]), async = j.mode == 'async', t = now(), waits = {}, sel = {}, upd = {}, last = {},
             fresh = 0, selected = 0, out = -1}
  g.r, g.ends = g.p .. 'r:' .. j.round, g.t + tonumber(j.lease_ms)
  g.text, g.until_ = tostring(g.t), tostring(g.ends)
  g.v = fields_of(g.r, {'state', 'selmax', 'base', 'deadline'})
  if not g.async and g.v.state ~= 'open' or not g.v.state then return 0, true end
  local clients, took, alone = clients_of(a, CHECKIN_WORDS, from, to, {5}), 0, false
  local u = redis.call('HMGET', g.async and g.p .. 'aupd' or g.r .. ':upd', unpack(clients))
  local places = g.async and redis.call('ZMSCORE', g.p .. 'infl', unpack(clients))
  if not g.async then g.out = redis.call('ZCARD', g.r .. ':sel') end
  for i = 1, #clients do
    local candidate, answer = a[first + (i - 1) * CHECKIN_WORDS + 2], nil
    if g.async then answer = enter_buffer(g, clients[i], candidate, u[i], places[i])
    else answer = enter_round(g, clients[i], candidate, u[i]) end
    alone = not answer
    if alone then break end
    out[#out + 1], took = answer, i
  end
  write_checkins(g)
  return took, alone
end

local function words_fit(a, words, call)
  if #a == 0 or #a % words ~= 0 then return {} end
  return call()
end

-- ARGV as of trib_commit, all nine, for each -> its answers
redis.register_function('trib_commit_many', function(k, a)
  return words_fit(a, COMMIT_WORDS, function() return in_turn(k, a, COMMIT_WORDS, gather_commits, commit_one) end)
end)
-- ARGV as of trib_checkin, all five, for each -> its answers
redis.register_function('trib_checkin_many', function(k, a)
  return words_fit(a, CHECKIN_WORDS, function() return in_turn(k, a, CHECKIN_WORDS, gather_checkins, checkin_one) end)
end)
end
