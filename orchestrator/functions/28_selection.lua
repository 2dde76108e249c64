-- SPDX-License-Identifier: Apache-2.0
-- ---- who is asked, and when those who are not shall come again ----
local LEFT_MAX_MS = 30000

-- Seeded sampling: a function of seed, round and client, so that anybody can tell who is in the sample. It doubles each
-- time that the round was extended.
local function sampled(j, base, client)
  local fraction, seed = string.match(j.sample, '^([^|]*)|(.*)$')
  local far = tonumber(redis.call('HGET', base, 'extended') or '0')
  local draw = tonumber(string.sub(redis.sha1hex(seed .. '|' .. j.round .. '|' .. client), 1, 13), 16)
  return draw < tonumber(fraction) * 2 ^ far * 2 ^ 52
end

-- -> WAIT why ms: how long the round still takes, told by how long the last ones took (0: not known)
local function told_to_wait(k, base, why, t)
  local opened, took = redis.call('HGET', base, 'opened'), redis.call('HGET', k[1], 'rtime')
  local left = opened and took and tonumber(opened) + tonumber(took) - t or 0
  return {'WAIT', why, math.max(0, math.min(LEFT_MAX_MS, left))}
end

-- A version is there: how long rounds take (half of it the newest).
local function round_took(k, base, t)
  local d = t - tonumber(redis.call('HGET', base, 'opened') or t)
  local had = tonumber(redis.call('HGET', k[1], 'rtime') or d)
  redis.call('HSET', k[1], 'rtime', math.floor((had + d) / 2))
end
