-- SPDX-License-Identifier: Apache-2.0
-- ---- which node a client is sent to ----
-- Fields of a job: plan = '[~]<node>[=<quota>],..' (written by the leader, orchestrator/placer.h; a node without a quota takes
-- all), plangen (raised with it), place = '<policy>|<window_s>'. '~': the nodes take turns, else one after the other.
-- Of a round: planat = '<plangen>|<selections so far>'.

-- ARGV token plan -> OK | SAME | FENCED | NOJOB
local function plan_set(k, a)
  local had = redis.call('HMGET', k[1], 'id', 'plan')
  if not had[1] then return {'NOJOB'} end
  if not fence(k[1], a[1]) then return {'FENCED'} end
  if (had[2] or '') == a[2] then return {'SAME'} end
  redis.call('HSET', k[1], 'plan', a[2])
  redis.call('HINCRBY', k[1], 'plangen', 1)
  return {'OK'}
end

-- Odd steps of about 0.62 * total that meet every number below `total` once.
local function step_of(total)
  local function common(x, y) while y > 0 do x, y = y, x % y end return x end
  local step = math.max(1, math.floor(total * 0.618))
  while common(step, total) > 1 do step = step + 1 end
  return step
end

-- A selected client is told the URL of the node that is planned for it, while that lives (else the next one of the plan).
-- Where it uploads is its own choice all the same. New selections fill the quotas; who asks again, or comes after them, is
-- spread in proportion.
local function planned(k, answer, candidate)
  if answer[1] ~= 'SELECTED' then return answer end
  local p = redis.call('HMGET', k[1], 'plan', 'plangen')
  if not p[1] or p[1] == '' then return answer end
  local base, gen, nodes, total = prefix(k[1]) .. 'r:' .. answer[2], p[2] or '0', {}, 0
  for node, quota in string.gmatch(p[1], '([^~,=]+)=?(%d*)') do
    nodes[#nodes + 1] = {node, quota ~= '' and tonumber(quota) or 1}
    total = total + nodes[#nodes][2]
  end
  if total == 0 then return answer end
  local at = tonumber(string.sub(answer[5], -5), 36) or 0
  if answer[5] == candidate then
    local g, n = string.match(redis.call('HGET', base, 'planat') or '', '^(%d+)|(%d+)$')
    n = g == gen and tonumber(n) or 0
    redis.call('HSET', base, 'planat', gen .. '|' .. string.format('%.0f', n + 1))
    if n < total then at = string.sub(p[1], 1, 1) == '~' and n * step_of(total) or n end
  end
  at = at % total
  local first = 1
  while at >= nodes[first][2] do at = at - nodes[first][2]; first = first + 1 end
  for i = 0, math.min(#nodes, 8) - 1 do
    local node = nodes[(first - 1 + i) % #nodes + 1][1]
    local url = not draining(node) and redis.call('HGET', 'trib:node:' .. node, 'url')
    if url and url ~= '' then answer[7] = url; return answer end
  end
  return answer
end

redis.register_function('trib_plan_set', plan_set)
