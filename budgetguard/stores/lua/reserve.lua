-- ledger.reserve: grant a hold on all of its accounts that exist, or change nothing and say why not.

if frozen then
  return {'frozen', frozen}
end
local id, amount, on_expiry, expires = take(), take(), take(), int(now + tonumber(take()))
local judged, seen = string.match(take(), '^(%d+)(s?)$')
local first = at + 2
at = first + tonumber(take()) - 1
local last = at
local new = {amount = amount, on_expiry = on_expiry, units = units_given(first, last)}

local prior = load(id)
if prior then
  local names = {}
  for i = 1, #prior.on, 3 do
    names[#names + 1] = prior.on[i]
  end
  return {'repeated', names}
end
local order, unknown, mask, outdated, shadows = charged()
local revision, document = scopes or '0', {}
if judged ~= revision then
  local rules = call('GET', P .. 'scopes.rules')
  document = {revision, rules or ''}
  if not rules ~= not scopes then
    failure = failure or {'lost', ''}
  end
end
if not scopes and seen == 's' then
  failure = failure or {'lost', ''}
end
if failure then
  return failure
end
if #outdated > 0 or #document > 0 then
  return {'outdated', document, outdated}
end
if unknown then
  return {'unknown', unknown}
end
if #order == 0 then
  return {'unlimited'}
end
local answer = unready(order)
if answer then
  return answer
end

-- Whether an account has too little, and the limit by which that was judged if it is not the account's own.
local function refuses(acc, wanted)
  if acc.grants and acc.limit ~= '' and not acc.pin then
    return seldom().lacks(acc, wanted)
  end
  local given = acc.pin or acc.limit
  local limit = given == '' and MOST or math.min(tonumber(given), MOST)
  local own = acc.grants and limit == seldom().limit_of(acc)
  -- Both differences are exact as doubles wherever the outcome depends on a single Nano.
  return tonumber(wanted) > limit - acc.spent - acc.held, not own and int(limit)
end

local shadowed, names = {}, {}
for _, acc in ipairs(order) do
  local wanted = amounts_of(new, acc)
  if wanted ~= '0' then
    local refused, limit = refuses(acc, wanted)
    if refused and not (shadows[acc.name] and tonumber(wanted) <= MOST - acc.spent - acc.held) then
      return {'refused', describe(acc, limit), expiries}
    elseif refused then
      shadowed[#shadowed + 1] = describe(acc, limit)
      names[#names + 1] = acc.name
    end
  end
end
local on = {}
for _, acc in ipairs(order) do
  if acc.fresh then
    seldom().create(acc)
  end
  local wanted = amounts_of(new, acc)
  if wanted ~= '0' then
    call('HINCRBY', acc.key, 'held', wanted)
  end
  acc.updated = stamp
  if acc.pin then
    call('HSET', acc.key, 'updated', stamp, 'limit', acc.pin)
  else
    call('HSET', acc.key, 'updated', stamp)
  end
  call('ZADD', P .. 'o:' .. acc.name, expires, id)
  keep(acc)
  on[#on + 1] = acc.name
  on[#on + 1] = acc.window
  on[#on + 1] = ''
end
local key = P .. 'h:' .. id
call('HSET', key, 'state', 'held', 'on', cmsgpack.pack(on), 'amount', amount,
  'on_expiry', on_expiry, 'expires', expires, unpack(ARGV, first, last))
if #names > 0 then
  call('HSET', key, 'shadowed', cjson.encode(names))
end
call('ZADD', P .. 'holds', 0, id)
call('ZADD', P .. 'open', 0, id)
if sweeping ~= 0 then
  seldom().sweep()
end
if #expiries == 0 and #shadowed == 0 then
  return mask
end
return {'granted', mask, expiries, shadowed}
