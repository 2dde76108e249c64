-- SPDX-License-Identifier: Apache-2.0
do     -- a chunk of Lua has room for 200 local names: these are of this file alone
-- Room for n more among the tokens that are over: a slice of them is looked at, the next call goes on behind it
-- (tokprune on the job: where). All at once would hold up Redis, and with it the leader's lease.
local function tokens_prune(k, tok, n, t)
  local page = redis.call('HSCAN', tok, redis.call('HGET', k[1], 'tokprune') or '0', 'COUNT', 2 * n + 1000)
  redis.call('HSET', k[1], 'tokprune', page[1])
  local all = page[2]
  for i = 1, #all, 2 do
    local exp = string.match(all[i + 1], '^[^|]*|[^|]*|(%d+)|')
    if not exp or tonumber(exp) <= t then
      redis.call('HDEL', tok, all[i])
      redis.call('HDEL', tok .. 'id', string.sub(all[i], 1, 12))
    end
  end
end

-- Clients' tokens: only their hashes come here. ARGV token client('' = any) scope ttl_ms hashes (64 hex each,
-- one after the other) [labels 'key=value,..'] -> OK expires_ms | FULL n | FENCED | NOJOB
local function tokens_issue(k, a)
  if redis.call('EXISTS', k[1]) == 0 then return {'NOJOB'} end
  if not fence(k[1], a[1]) then return {'FENCED'} end
  local tok, t, n = prefix(k[1]) .. 'tok', now(), #a[5] / 64
  if redis.call('HLEN', tok) + n > TOKENS_MAX then tokens_prune(k, tok, n, t) end
  local have = redis.call('HLEN', tok)
  if have + n > TOKENS_MAX then return {'FULL', have} end
  local ends, labels = t + tonumber(a[4]), (a[6] or '') ~= '' and '|' .. a[6] or ''
  for i = 1, n do
    local h = string.sub(a[5], 64 * i - 63, 64 * i)
    local id = string.sub(h, 1, 12)
    local same = redis.call('HGET', tok .. 'id', id) or ''       -- two of one id: revoked together
    if not string.find(same, h, 1, true) then redis.call('HSET', tok .. 'id', id, same .. h) end
    redis.call('HSET', tok, h,
      a[2] .. '|' .. a[3] .. '|' .. string.format('%.0f', ends) .. '|' .. string.format('%.0f', t) .. labels)
  end
  event(k[1], 't', 'token.issued', 'count', n)
  return {'OK', ends}
end
-- ARGV token id (first 12 hex digits of a hash) -> OK n | NOOP (none) | FENCED | NOJOB
local function token_revoke(k, a)
  if redis.call('EXISTS', k[1]) == 0 then return {'NOJOB'} end
  if not fence(k[1], a[1]) then return {'FENCED'} end
  local tok, n = prefix(k[1]) .. 'tok', 0
  local hashes = redis.call('HGET', tok .. 'id', a[2]) or ''
  for i = 1, #hashes, 64 do n = n + redis.call('HDEL', tok, string.sub(hashes, i, i + 63)) end
  redis.call('HDEL', tok .. 'id', a[2])
  if n == 0 then return {'NOOP'} end
  event(k[1], 't', 'token.revoked', 'id', a[2])
  wake(k[1], 'job')
  return {'OK', n}
end

-- Idempotency. KEYS idem key ; ARGV fingerprint ttl_ms -> NEW | RUNNING | REPLAY text | MISMATCH
local function idem_begin(k, a)
  local v = redis.call('GET', k[1])
  if not v then redis.call('SET', k[1], a[1] .. '|-', 'PX', 10000); return {'NEW'} end
  local fp, res = string.match(v, '^([^|]*)|(.*)$')
  if fp ~= a[1] then return {'MISMATCH'} end
  if res == '-' then return {'RUNNING'} end
  return {'REPLAY', res}
end
-- KEYS idem key ; ARGV fingerprint ttl_ms result
local function idem_end(k, a)
  redis.call('SET', k[1], a[1] .. '|' .. a[3], 'PX', a[2])
  return {'OK'}
end

redis.register_function('trib_tokens_issue', tokens_issue)
redis.register_function('trib_token_revoke', token_revoke)
redis.register_function('trib_idem_begin', idem_begin)
redis.register_function('trib_idem_end', idem_end)
end
