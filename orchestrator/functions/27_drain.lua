-- SPDX-License-Identifier: Apache-2.0
-- ---- what keeps a node that is to leave ----
local FILES_WAIT_MS = 30000   -- files that are on no other node hold it up so long at most
local FILES_AT_ONCE = 8

-- A version's file is on this node alone: one of those that stay is asked to fetch it.
local function carry(job, k, version, node)
  local others = staying()
  if #others == 0 then return end
  redis.call('PUBLISH', 'trib:wake', 'carry ' .. job .. ' ' .. version .. ' ' .. others[now() % #others + 1][1])
end

local function lone_files(job, k, node)
  local at, count = redis.call('HGETALL', prefix(k[1]) .. 'at'), 0
  for i = 1, #at, 2 do
    if string.find(',' .. at[i + 1] .. ',', ',' .. node .. ',', 1, true) and copies(at[i], k, node) == 0 then
      count = count + 1
      if count <= FILES_AT_ONCE then carry(job, k, at[i], node) end
    end
  end
  return count
end

-- Rounds of which the node holds a share or which it gathers, files that nobody else has, in a page of the jobs.
-- KEYS trib:jobs ; ARGV node offset count -> {jobs looked at, rounds, files}
local function node_left(k, a)
  local ids = redis.call('ZRANGE', k[1], a[2], tonumber(a[2]) + tonumber(a[3]) - 1)
  local since = tonumber(string.match(redis.call('HGET', DRAINING, a[1]) or '', '|(%d+)$') or '0')
  local shares, files = 0, 0
  for i = 1, #ids do
    local job = {'trib:{' .. ids[i] .. '}:job'}
    local j = redis.call('HMGET', job[1], 'state', 'round', 'pubround')
    if j[1] == 'running' or j[1] == 'paused' then
      for n = tonumber(j[3] or '0') + 1, tonumber(j[2]) do
        local r = redis.call('HMGET', prefix(job[1]) .. 'r:' .. n, 'state', 'n:' .. a[1], 'top')
        if (r[1] == 'open' or r[1] == 'closing') and
          (tonumber(r[2] or '0') > 0 or (r[1] == 'closing' and r[3] == a[1])) then
          shares = shares + 1
        end
      end
    end
    if now() < since + FILES_WAIT_MS then files = files + lone_files(ids[i], job, a[1]) end
  end
  return {#ids, shares, files}
end

-- A check-in that came by a node which is to leave, or was planned for none, goes to one that stays.
local function elsewhere(answer, node)
  if answer[1] ~= 'SELECTED' or answer[7] or (node or '') == '' or not draining(node) then return answer end
  local nodes = staying()
  if #nodes > 0 then
    answer[7] = nodes[(tonumber(string.sub(answer[5], -5), 36) or 0) % #nodes + 1][2]
  end
  return answer
end

redis.register_function('trib_node_left', node_left)
