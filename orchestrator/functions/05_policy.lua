-- SPDX-License-Identifier: Apache-2.0
-- What a job's policy says, taken from its spec once (so that a PATCH can do it again) and kept as fields of the job:
--   mode late afn aalpha ahinge aoff amax atrig adt   what an update that is late counts
--   adenom apop anorm                                 what the sum is divided by
--   sample                                            'fraction|seed' of a synchronous round's sample, or 'c<count>|seed'
-- Powers and roots are taken here and at a commit, on the machine that decides, and their results are recorded: nobody
-- computes them again.

-- Discount of an update made `tau` versions ago, whose client had it for `held` ms. const 1; poly (1+tau)^-alpha
-- (FedBuff: alpha 1/2); hinge 1 up to `after`, then 1/(alpha*(tau-after)+1) (FedAsync); inverse_sqrt 1/(1+sqrt(tau))
-- (NVFlare, which also counts tau from the version after: offset 1); intervals ceil(held/dt), at most amax+1 (FedFix).
local function discount(j, tau, held)
  local alpha, after = tonumber(j.aalpha), tonumber(j.ahinge)
  tau = tau + tonumber(j.aoff or '0')
  if j.afn == 'poly' then return (1 + tau) ^ -alpha end
  if j.afn == 'hinge' and tau > after then return 1 / (alpha * (tau - after) + 1) end
  if j.afn == 'inverse_sqrt' then return 1 / (1 + math.sqrt(tau)) end
  if j.afn == 'intervals' then
    return math.max(1, math.min(math.ceil(held / tonumber(j.adt)), tonumber(j.amax) + 1))
  end
  return 1
end

-- Fixed point, both ways.
local function discounted(j, weight, tau, held)
  return string.format('%.0f', math.max(1, math.floor(tonumber(weight) * discount(j, tau, held) + 0.5)))
end

-- What the sum of a round is divided by, fixed point 2^-20; '0' = the sum's own weights. Doubles, but only products
-- and sums of them: the same bits on every machine.
local function divisor_of(j, r)
  local d
  if j.adenom == 'count' then d = tonumber(r.acc or '0') * 1048576
  elseif j.adenom == 'goal' then d = tonumber(r.goal or '0') * 1048576
  elseif j.adenom == 'weight_sum_raw' then d = tonumber(r.wraw or '0')
  elseif j.adenom == 'one' then d = 1048576
  elseif j.adenom == 'population' then d = tonumber(j.apop) * 1048576
  else return '0' end
  if j.anorm then d = d * tonumber(j.anorm) end
  return string.format('%.0f', math.max(1, math.floor(d + 0.5)))
end

-- A counted update of a synchronous round whose memory is gone: its client may report again. What had been carried
-- there belongs to its own round again. Returns the weight before any discount.
local function lose_place(k, r, client, id, w)
  local from, raw = string.match(redis.call('HGET', r .. ':late', client) or '', '^(%d+)|[^|]*|(%d+)$')
  if from then
    redis.call('HDEL', r .. ':late', client)
    redis.call('HDEL', r .. ':upd', client)
    redis.call('HSET', prefix(k[1]) .. 'r:' .. from .. ':upd', client, 'S|' .. id .. '|0')
    return raw
  end
  redis.call('HSET', r .. ':upd', client, 'S|' .. id .. '|' .. now())
  redis.call('ZADD', r .. ':sel', now() + 5000, client)      -- it keeps its place a while
  return w
end

-- A synchronous job has the asynchronous ones' discount, too: for clients that were out when it was made one.
local function policy_fields(key, spec)
  local agg, y, sync = spec.aggregation or {}, spec.async or {}, spec.sync or {}
  local st = y.staleness or {}
  local j = {amax = y.max_staleness or 20, afn = st.fn or 'poly', aalpha = st.alpha or 0.5, ahinge = st.after or 0,
             aoff = st.offset or 0, adt = (y.flush_timeout_s or 120) * 1000}
  redis.call('HDEL', key, 'mem', 'mode', 'below', 'late', 'afn', 'aalpha', 'ahinge', 'aoff', 'amax', 'atrig', 'adt', 'adenom',
    'apop', 'anorm', 'sample')
  if spec.mode == 'async' then
    j.mode, j.atrig = 'async', y.trigger or 'count'
    if y.memory == 'all' then j.mem = y.memory_clients or 100 end
    if st.normaliser == 'average' then
      j.anorm = discount({afn = j.afn, aalpha = j.aalpha, ahinge = j.ahinge, aoff = j.aoff}, st.average or 0, 0)
    end
  else
    if j.afn == 'intervals' then j.afn = 'const' end        -- sums of this mode have no room for more than the weight
    if sync.below_quorum == 'fail' then j.below = 'fail' end
    local pick = sync.sampling or {}
    if (pick.count or 0) > 0 then
      j.sample = string.format('c%d|%.0f', pick.count, pick.seed or 0)
    elseif (pick.fraction or 1) < 1 then
      j.sample = string.format('%.17g', pick.fraction) .. '|' .. string.format('%.0f', pick.seed or 0)
    end
    if sync.late == 'next' then
      st = sync.staleness or {}
      j.late, j.amax, j.afn = 'next', sync.max_staleness or 5, st.fn or 'poly'
      j.aalpha, j.ahinge, j.aoff = st.alpha or 0.5, st.after or 0, st.offset or 0
    end
  end
  j.adenom, j.apop = agg.denominator or 'weight_sum', agg.population
  for _, name in ipairs({'mem', 'mode', 'below', 'late', 'afn', 'aalpha', 'ahinge', 'aoff', 'amax', 'atrig', 'adt', 'adenom',
                         'apop', 'anorm', 'sample'}) do
    local value = j[name]
    if value ~= nil then
      redis.call('HSET', key, name, type(value) == 'number' and string.format('%.17g', value) or value)
    end
  end
end
