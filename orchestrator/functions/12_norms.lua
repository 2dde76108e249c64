-- SPDX-License-Identifier: Apache-2.0
-- ---- squared norms of updates, taken by the gateway as they land, and what follows from them ----
--   norms on the job: 1 = a policy of its needs them
--   on a round: ns SUM w*||g||^2, nq SUM w^2, nn how many (w: the weight that counts, as a number); nmean ||g'||^2 of
--               their weighted mean g', told by the top with the model; :met '|<update>' -> 'w|norm'
local norms = {}

function norms.text(x) return string.format('%.17g', x) end

-- A place for an update: is its norm wanted?
function norms.reserved(j, base)
  if j.norms then return {'OK', base, 'norms'} end
  return {'OK', base}
end

function norms.move(r, w, norm, sign)
  local v = redis.call('HMGET', r, 'ns', 'nq')
  redis.call('HSET', r, 'ns', norms.text(tonumber(v[1] or '0') + sign * w * norm),
    'nq', norms.text(tonumber(v[2] or '0') + sign * w * w))
  redis.call('HINCRBY', r, 'nn', sign)
end

-- An update counts in round r with this weight (fixed point); text: its squared norm, '' or nil = not known.
function norms.add(j, r, id, counted, text)
  local norm = j.norms and tonumber(text or '')
  if not norm or not (norm >= 0 and norm < 1e300) then return end
  local w = tonumber(counted) / 1048576
  redis.call('HSET', r .. ':met', '|' .. id, norms.text(w) .. '|' .. norms.text(norm))
  norms.move(r, w, norm, 1)
end

function norms.drop(r, id)
  local w, norm = string.match(redis.call('HGET', r .. ':met', '|' .. id) or '', '^([^|]*)|(.*)$')
  if not w then return end
  redis.call('HDEL', r .. ':met', '|' .. id)
  norms.move(r, tonumber(w), tonumber(norm), -1)
end

-- Of a round whose mean is known: {count, spread SUM p||g-g'||^2, variance of one update, squared norm of the expected update, of the mean}. With
-- shares p = w/W: SUM p||g-g'||^2 = SUM p||g||^2 - ||g'||^2, and that is (1 - SUM p^2) V in the mean; for equal weights
-- V = (SUM||g||^2 - k||g'||^2)/(k-1). nil: fewer than two updates, or norms that are not known.
function norms.moments(r)
  local v = redis.call('HMGET', r, 'acc', 'wsum', 'ns', 'nq', 'nn', 'nmean')
  local k, w, mean = tonumber(v[1] or '0'), tonumber(v[2] or '0') / 1048576, tonumber(v[6] or '')
  if k < 2 or not mean or tonumber(v[5] or '0') ~= k then return nil end
  local p2 = tonumber(v[4]) / (w * w)
  if p2 > 1 - 1e-9 then return nil end
  local variance = math.max(0, (tonumber(v[3]) / w - mean) / (1 - p2))
  return {count = k, spread = variance * (1 - p2), variance = variance, expected = math.max(0, mean - variance * p2), mean = mean}
end
