-- SPDX-License-Identifier: Apache-2.0
-- ---- label selectors: which clients a job asks (spec.selection) ----
--   want on the job: '<any or token>;key|op|v,v;..', conditions that must all hold; not there: everybody.
--   Labels are 'key=value,..' of a check-in, and of the client's token (its fifth part): the token's win.

local function selector_policy(k, spec)
  local s = spec.selection or {}
  local labels, out = s.labels or {}, {}
  redis.call('HDEL', k[1], 'want')
  for key, value in pairs(labels.matchLabels or {}) do out[#out + 1] = key .. '|In|' .. value end
  for _, e in ipairs(labels.matchExpressions or {}) do
    out[#out + 1] = e.key .. '|' .. e.operator .. '|' .. table.concat(e.values or {}, ',')
  end
  if #out == 0 then return end
  table.sort(out)
  redis.call('HSET', k[1], 'want', (s.labels_from or 'any') .. ';' .. table.concat(out, ';'))
end

local function labels_into(have, text)
  for key, value in string.gmatch(text or '', '([^=,]+)=([^,]*)') do have[key] = value end
end

-- Nil when the client is one that the job asks, else the condition that does not hold.
local function selector_fails(key, want, said, hash)
  local from, have = string.match(want, '^(%a+);'), {}
  if from == 'any' then labels_into(have, said) end
  if (hash or '') ~= '' then
    labels_into(have, string.match(token_find({key}, {hash}) or '', '^[^|]*|[^|]*|[^|]*|[^|]*|(.*)$'))
  end
  for name, op, values in string.gmatch(string.sub(want, #from + 1), ';([^|;]*)|(%a+)|([^;]*)') do
    local value, among = have[name], false
    for v in string.gmatch(values .. ',', '([^,]*),') do among = among or v == value end
    local good
    if op == 'In' then good = among
    elseif op == 'NotIn' then good = not among
    elseif op == 'Exists' then good = value ~= nil
    else good = value == nil end
    if not good then
      return name .. ' ' .. op .. ((op == 'In' or op == 'NotIn') and ' (' .. values .. ')' or '') ..
        (from == 'token' and ', by its token' or '')
    end
  end
  return nil
end
