-- SPDX-License-Identifier: Apache-2.0
-- ---- which versions are kept ----
--   on the job:  s:keep 'keep|every|metric|mode' (of spec.checkpoints), lowv: versions below it have left the newest
--                `keep`, ckbest 'metric|mode|value|version'
--   :old  zset   versions that have left and are not removed yet (the best one, and those somebody may still fetch)
--   :pin  hash   version -> until (ms): another job is about to begin with it
--   init on the job 'job|version': what it shall begin with, until it has
-- A version whose entry in :models is gone is removed from the disks (trib_models_kept). Version 0 stays: its file has
-- the header of all.

local ROUNDS_MAX = 4096       -- rounds whose hash is kept
local PRUNE_MAX = 256         -- versions looked at in one transition
local PIN_MS = 600000
local HOLD_MS = 60000         -- a selected client has begun to fetch its model by then

local function checkpoint_policy(k, spec)
  local c = spec.checkpoints or {}
  local b = c.best or {}
  redis.call('HDEL', k[1], 's:keep')
  if (c.keep or 0) > 0 then
    redis.call('HSET', k[1], 's:keep', c.keep .. '|' .. (c.every or 0) .. '|' .. (b.metric or '') .. '|' .. (b.mode or 'max'))
  end
end

-- Versions that clients who are out were given (they may fetch them until they report or their place ends).
local function versions_out(k, t)
  local p, out = prefix(k[1]), {}
  local clients = redis.call('ZRANGEBYSCORE', p .. 'infl', '(' .. t, '+inf')
  for i = 1, #clients, 500 do
    local places = redis.call('HMGET', p .. 'aupd', unpack(clients, i, math.min(i + 499, #clients)))
    for n = 1, #places do
      local base = string.match(places[n] or '', '^[SR]|[^|]*|%d+|(%d+)')
      if base then out[base] = true end
    end
  end
  return out
end

local function best_version(k, name, mode, v, text)
  local key, value, version = string.match(redis.call('HGET', k[1], 'ckbest') or '', '^([^|]*|[^|]*)|([^|]*)|(%d+)$')
  if key ~= name .. '|' .. mode then value, version = nil, nil end
  local x = metric_of(text, name)
  if x and (not value or (mode == 'min' and x < tonumber(value)) or (mode == 'max' and x > tonumber(value))) then
    redis.call('HSET', k[1], 'ckbest', string.format('%s|%s|%.17g|%d', name, mode, x, v))
    return tostring(v)
  end
  return version
end

-- Round r is over: who was selected in it and has not reported may still be about to fetch its base.
local function checkpoints_hold(k, r)
  if redis.call('HEXISTS', k[1], 's:keep') == 0 then return end
  local t, pin = now(), prefix(k[1]) .. 'pin'
  local last = redis.call('ZREVRANGEBYSCORE', r .. ':sel', '(+inf', '(' .. t, 'WITHSCORES', 'LIMIT', 0, 1)[2]
  local base = redis.call('HGET', r, 'base')
  local ends = last and math.min(tonumber(last), t + HOLD_MS)
  if ends and ends > tonumber(redis.call('HGET', pin, base) or '0') then redis.call('HSET', pin, base, ends) end
end

-- Version v was published with metrics `text`.
local function checkpoints_prune(k, v, text)
  local keep, every, name, mode = string.match(redis.call('HGET', k[1], 's:keep') or '', '^(%d+)|(%d+)|([^|]*)|(%a+)$')
  if not keep then return end
  local p, t, gone = prefix(k[1]), now(), 0
  local best = name ~= '' and best_version(k, name, mode, v, text) or nil
  local low, looked = tonumber(redis.call('HGET', k[1], 'lowv') or '1'), 0
  every = tonumber(every)
  while low <= v - tonumber(keep) and looked < PRUNE_MAX do
    if every == 0 or low % every ~= 0 then redis.call('ZADD', p .. 'old', low, low) end
    low, looked = low + 1, looked + 1
  end
  redis.call('HSET', k[1], 'lowv', low)
  local old = redis.call('ZRANGE', p .. 'old', 0, PRUNE_MAX - 1)
  local out = #old > 0 and versions_out(k, t)
  for i = 1, #old do
    local pin = tonumber(redis.call('HGET', p .. 'pin', old[i]) or '0')
    if old[i] ~= best and not out[old[i]] and pin < t then
      redis.call('HDEL', p .. 'models', old[i])
      redis.call('HDEL', p .. 'pin', old[i])
      redis.call('ZREM', p .. 'old', old[i])
      gone = gone + 1
    end
  end
  if gone > 0 then
    event(k[1], 't', 'model.pruned', 'v', v, 'count', gone)
    wake(k[1], 'prune')
  end
end

-- Which files may be there: {newest version, kept ..}; older ones that are not named may go. -> or NOJOB
local function models_kept(k, a)
  local version = redis.call('HGET', k[1], 'version')
  if not version then return {'NOJOB'} end
  local out = redis.call('HKEYS', prefix(k[1]) .. 'models')
  table.insert(out, 1, version)
  return out
end

-- What job k shall begin with: job and version ('' = the newest), of the same tenant. Keeps it from being removed.
-- KEYS source's hash ; ARGV tenant version -> OK version | NOJOB | NOMODEL
local function model_pin(k, a)
  local s = redis.call('HMGET', k[1], 'tenant', 'version')
  if not s[2] or (s[1] or 'default') ~= a[1] then return {'NOJOB'} end
  local v = a[2] == '' and s[2] or a[2]
  if not redis.call('HGET', prefix(k[1]) .. 'models', v) then return {'NOMODEL'} end
  redis.call('HSET', prefix(k[1]) .. 'pin', v, now() + PIN_MS)
  return {'OK', v}
end

-- The job still waits for its first model: its agents are told again. -> OK | NOOP
local function init_ask(k)
  if redis.call('HEXISTS', k[1], 'init') == 0 then return {'NOOP'} end
  wake(k[1], 'copy')
  return {'OK'}
end

-- What it waits for. -> OK job version | NOOP
local function init_of(k)
  local job, v = string.match(redis.call('HGET', k[1], 'init') or '', '^([^|]*)|(%d+)$')
  if not job then return {'NOOP'} end
  return {'OK', job, v}
end

-- A node has the file of version 0 (a copy of the source's): as model_init. -> OK | NOOP | STATE s | NOMODEL
local function init_done(k)
  local job, v = string.match(redis.call('HGET', k[1], 'init') or '', '^([^|]*)|(%d+)$')
  if not job then return {'NOOP'} end
  local st, p = redis.call('HGET', k[1], 'state'), 'trib:{' .. job .. '}:'
  if st ~= 'created' then return {'STATE', st} end
  local src = redis.call('HMGET', p .. 'job', 'bytes', 'params', 'header')
  local digest = string.match(redis.call('HGET', p .. 'models', v) or '', '^([^|]*)|')
  if not digest or not src[1] then return {'NOMODEL'} end
  redis.call('HDEL', k[1], 'init')
  if redis.call('HSETNX', prefix(k[1]) .. 'models', '0', digest .. '|' .. src[1] .. '|0|' .. now()) == 0 then return {'NOOP'} end
  redis.call('HSET', k[1], 'version', 0, 'bytes', src[1], 'params', src[2], 'header', src[3], 'layout', digest, 'reason', '')
  redis.call('HDEL', p .. 'pin', v)
  event(k[1], 't', 'model.published', 'v', 0, 'digest', digest, 'from', job, 'fromv', v)
  wake(k[1], 'job')
  return {'OK'}
end

redis.register_function('trib_models_kept', models_kept)
redis.register_function('trib_model_pin', model_pin)
redis.register_function('trib_init_ask', init_ask)
redis.register_function('trib_init_of', init_of)
redis.register_function('trib_init_done', init_done)
