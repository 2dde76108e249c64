-- SPDX-License-Identifier: Apache-2.0
-- ---- who is asked, and when those who are not shall come again ----
local LEFT_MAX_MS = 30000

-- Sampling by count. Clients are numbered as they first check in (:known); round n takes those whose number an
-- n-th pseudo-random permutation of the N numbers there are (when its first client asks) moves below `count`.
-- j.sample 'c<count>|<seed>'
local KNOWN_MAX = 1000000

local function known_client(k, client)
  local key = prefix(k[1]) .. 'known'
  local number = redis.call('HGET', key, client)
  if number then return tonumber(number) end
  local n = redis.call('HLEN', key)
  if n >= KNOWN_MAX then
    redis.call('HINCRBY', k[1], 'knownleft', 1)
    return n
  end
  redis.call('HSET', key, client, n)
  return n
end

-- Four Feistel rounds on pairs of digits of base m >= sqrt(N); what falls outside [0, N) goes through them again.
local function permuted(text, number, n)
  local m = math.ceil(math.sqrt(n))
  repeat
    local left, right = math.floor(number / m), number % m
    for i = 0, 3 do
      local f = tonumber(string.sub(redis.sha1hex(text .. '|' .. i .. '|' .. string.format('%d', right)), 1, 12), 16)
      left, right = right, (left + f) % m
    end
    number = left * m + right
  until number < n
  return number
end

local function sampled_count(k, j, base, client)
  local count, seed = string.match(j.sample, '^c(%d+)|(.*)$')
  local number = known_client(k, client)
  redis.call('HSETNX', base, 'known', redis.call('HLEN', prefix(k[1]) .. 'known'))
  local v = redis.call('HMGET', base, 'known', 'extended')
  local n, wanted = tonumber(v[1]), tonumber(count) * 2 ^ tonumber(v[2] or '0')
  if n <= wanted then return number < wanted end
  return number < n and permuted(seed .. '|' .. j.round, number, n) < wanted
end

-- Seeded sampling: a function of seed, round and client, so that anybody can tell who is in the sample. It doubles each
-- time that the round was extended.
local function sampled(k, j, base, client)
  if string.sub(j.sample, 1, 1) == 'c' then return sampled_count(k, j, base, client) end
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
