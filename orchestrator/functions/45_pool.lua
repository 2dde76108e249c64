-- SPDX-License-Identifier: Apache-2.0
do     -- a chunk of Lua has room for 200 local names: these are of this file alone
-- ---- whom a client of a pool works for (FedAST) ----
-- The pool's slots are divided anew at each check-in: in proportion to share times the work that is left, or times how
-- much a job's updates differ (19_pool.lua; until that is known: the mean of what is known of the others), each job
-- at least its minimum and at most what it may have out. Who asks goes to the job that lacks most of its slots.

-- rows: {score, min, cap} in the order in which the jobs joined; sets .slots. Exact but for halves: bounds that are
-- hit are frozen, on the side that is out of balance, until the rest fits.
local function pool_divide(rows, total)
  local least, most = 0, 0
  for _, r in ipairs(rows) do least, most = least + r.min, most + r.cap end
  total = math.min(total, most)
  if total <= least then
    for _, r in ipairs(rows) do
      r.slots = math.min(r.min, total)
      total = total - r.slots
    end
    return
  end
  local open, left = rows, total
  while #open > 0 do
    local score, over, rest = 0, 0, {}
    for _, r in ipairs(open) do score = score + r.score end
    for _, r in ipairs(open) do
      r.want = left * r.score / score
      r.exact = math.max(r.min, math.min(r.cap, r.want))
      over = over + r.exact - r.want
    end
    if math.abs(over) <= 1e-9 * total then break end
    for _, r in ipairs(open) do
      if (over > 0 and r.exact > r.want) or (over < 0 and r.exact < r.want) then
        left = left - r.exact
      else
        rest[#rest + 1] = r
      end
    end
    open = rest
  end
  local order, spare = {}, total
  for i, r in ipairs(rows) do
    r.slots = math.floor(r.exact + 1e-6)
    r.part = math.floor((r.exact - r.slots) * 1e6 + 0.5)
    spare = spare - r.slots
    order[i] = r
  end
  table.sort(order, function(x, y)
    if x.part ~= y.part then return x.part > y.part end
    return x.place < y.place
  end)
  for _, r in ipairs(order) do
    if spare > 0 and r.slots < r.cap then r.slots, spare = r.slots + 1, spare - 1 end
  end
end

local POOL_FIELDS = {'state', 'version', 'round', 'selmax', 'pshare', 'pmin', 'psize', 'ptok', 'stop_rounds', 'drain',
                     'want', 'pscore', 'pratio'}

local function pool_token_good(ids, client, hash, t)
  if hash == '' then return false end
  for i = 1, #ids do
    local token = redis.call('HGET', 'trib:{' .. ids[i] .. '}:tok', hash)
    if token then
      local bound, expires = string.match(token, '^([^|]*)|[^|]*|(%d+)|')
      return (bound == '' or bound == client) and expires and tonumber(expires) > t
    end
  end
  return false
end

local function pool_scores(rows)
  local sum, known = 0, 0
  for _, r in ipairs(rows) do
    local x = r.j.pscore and tonumber(r.j.pratio or '')
    if x then
      r.value = r.j.pscore == 'deviation' and math.sqrt(x) or x
      sum, known = sum + r.value, known + 1
    end
  end
  for _, r in ipairs(rows) do
    if not r.j.pscore then r.value = r.left end
    r.score = r.share * (r.value or (known > 0 and sum / known or 1))
  end
end

-- -> rows of the jobs that run (place in the order, id, key, j, out, score, min, cap), their pool's size, and what
-- else there is: {seen: any that the client may know, over, idle: a state}
local function pool_rows(key, ids, good, t)
  local rows, size, other = {}, 0, {}
  for i = 1, #ids do
    local job, j = 'trib:{' .. ids[i] .. '}:job', {}
    local v = redis.call('HMGET', job, unpack(POOL_FIELDS))
    for n = 1, #POOL_FIELDS do j[POOL_FIELDS[n]] = v[n] or nil end
    if not j.state then
      redis.call('ZREM', key, ids[i])
    elseif j.ptok and not good then
      other.denied = true
    elseif job_is_over(j.state) then
      other.seen, other.over = true, j.state
    elseif j.state ~= 'running' or j.version == '-1' then
      other.seen, other.idle = true, j.version == '-1' and 'NOMODEL' or 'PAUSED'
    else
      other.seen = true
      local p, stop, cap = prefix(job), tonumber(j.stop_rounds), tonumber(j.selmax)
      local out = redis.call('ZCOUNT', p .. 'infl', '(' .. t, '+inf') +
        redis.call('ZCOUNT', p .. 'r:' .. j.round .. ':sel', '(' .. t, '(+inf')
      size = math.max(size, tonumber(j.psize or '0'))
      rows[#rows + 1] = {place = i, id = ids[i], key = job, j = j, out = out, cap = cap,
        min = math.min(cap, tonumber(j.pmin or '1')),
        share = tonumber(j.pshare or '1'), left = math.max(1, stop - tonumber(j.version)) / stop}
    end
  end
  pool_scores(rows)
  return rows, size, other
end

-- Has the client a place there already?
local function pool_holds(row, client, t)
  local p, j = prefix(row.key), row.j
  local exp = string.match(redis.call('HGET', p .. 'aupd', client) or '', '^[SR]|[^|]*|(%d+)')
  if exp and tonumber(exp) > t then return true end
  local r = p .. 'r:' .. j.round
  local lease = redis.call('ZSCORE', r .. ':sel', client)
  return lease and lease ~= 'inf' and tonumber(lease) > t and redis.call('HGET', r, 'state') == 'open'
end

-- The rows that may be given another client, the one that lacks most first.
local function pool_shares(rows, size)
  local open, order, total = {}, {}, 0
  for _, r in ipairs(rows) do
    if not r.j.drain then open[#open + 1], total = r, total + r.cap end
  end
  if #open == 0 then return order end
  pool_divide(open, size > 0 and size or total)
  for _, r in ipairs(open) do
    if r.out < r.slots then order[#order + 1] = r end
  end
  table.sort(order, function(x, y)
    local a, b = (x.out + 1) * y.slots, (y.out + 1) * x.slots
    if a ~= b then return a < b end
    return x.place < y.place
  end)
  return order
end

-- KEYS trib:pool:<tenant>/<name> ; ARGV client update_id_candidate hash of its token ('' = none) [labels, node of the gateway]
-- -> {job, what its check-in answers} | {'', NOPOOL (none that this caller may know) | DONE | INELIGIBLE why | WAIT ..}
local function pool_checkin(k, a)
  local t, ids = now(), redis.call('ZRANGE', k[1], 0, POOL_MAX - 1)
  local rows, size, other = pool_rows(k[1], ids, pool_token_good(ids, a[1], a[3] or '', t), t)
  if not other.seen then return {'', {'NOPOOL'}} end
  if #rows == 0 then return {'', other.idle and {other.idle} or {'DONE', other.over}} end
  local ask = {a[1], a[2], a[4], a[3]}
  for _, r in ipairs(rows) do
    if pool_holds(r, a[1], t) then
      local answer = elsewhere(planned({r.key}, checkin({r.key}, ask), a[2]), a[5])
      if answer[1] == 'SELECTED' then return {r.id, answer} end
    end
  end
  local told, fails, any = {'WAIT', 'pool-full'}, nil, false
  for _, r in ipairs(rows) do
    r.fails = r.j.want and selector_fails(r.key, r.j.want, a[4], a[3])
    if r.fails then fails = fails or r.fails else any = true end
  end
  if not any then return {'', {'INELIGIBLE', fails}} end
  local first = true
  for _, r in ipairs(pool_shares(rows, size)) do
    if not r.fails then
      local answer = elsewhere(planned({r.key}, checkin({r.key}, ask), a[2]), a[5])
      if answer[1] == 'SELECTED' then return {r.id, answer} end
      if first and (answer[1] == 'WAIT' or answer[1] == 'QUOTA') then told = answer end
      first = false
    end
  end
  return {'', told}
end

-- KEYS as above -> {job slots out ..} of the jobs that run, in the order in which they joined
local function pool_view(k)
  local rows, size = pool_rows(k[1], redis.call('ZRANGE', k[1], 0, POOL_MAX - 1), true, now())
  pool_shares(rows, size)
  local out = {}
  for _, r in ipairs(rows) do
    out[#out + 1] = r.id
    out[#out + 1] = r.slots or 0
    out[#out + 1] = r.out
  end
  return out
end

redis.register_function('trib_pool_checkin', pool_checkin)
redis.register_function('trib_pool_view', pool_view)
end
