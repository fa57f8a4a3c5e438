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
local order, unknown, mask, outdated = charged()
if not scopes and seen == 's' then
  failure = failure or {'lost', ''}
end
if failure then
  return failure
end
local revision = scopes or '0'
if #outdated > 0 or judged ~= revision then
  local document = judged ~= revision and {revision, call('GET', P .. 'scopes.rules') or ''}
  return {'outdated', document or {}, outdated}
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

-- Whether an account has too little, the limit by which that was judged, and whether the bound of sums is why.
local function refuses(acc, wanted)
  if acc.grants and acc.limit ~= '' and not acc.pin then
    local limits, row = limits_of(acc), call('HMGET', acc.key, 'spent', 'held')
    local terms = {-1, row[1], -1, row[2], -1, wanted}
    for _, limit in ipairs(limits) do
      terms[#terms + 1], terms[#terms + 2] = 1, limit
    end
    return total(terms) < 0, nil
  end
  local given = acc.pin or acc.limit
  local limit = given == '' and MOST or math.min(tonumber(given), MOST)
  -- Both differences are exact as doubles wherever the outcome depends on a single Nano.
  return tonumber(wanted) > limit - acc.spent - acc.held, limit ~= limit_of(acc) and int(limit) or nil
end

local shadowed, names = {}, {}
for _, acc in ipairs(order) do
  local wanted = amounts_of(new, acc)
  if wanted ~= '0' then
    local refused, limit = refuses(acc, wanted)
    if refused and not (acc.shadow and tonumber(wanted) <= MOST - acc.spent - acc.held) then
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
    create(acc)
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
sweep()
if #expiries == 0 and #shadowed == 0 then
  return mask
end
return {'granted', mask, expiries, shadowed}
