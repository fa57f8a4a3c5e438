-- ledger.reserve: grant a hold on all of its accounts that exist, or change nothing and say why not.

if frozen then
  return {'frozen', frozen}
end
local id, amount, on_expiry, expires = take(), take(), take(), int(now + tonumber(take()))
local first = at + 2
at = first + tonumber(take()) - 1
local last = at

local prior = load(id)
if prior then
  local names = {}
  for i = 1, #prior.on, 3 do
    names[#names + 1] = prior.on[i]
  end
  return {'repeated', names}
end
local order, unknown, mask = charged()
if failure then
  return failure
end
if unknown then
  return {'unknown', unknown}
end
if #order == 0 then
  return {'unlimited'}
end
for _, acc in ipairs(order) do
  foresee(acc)
end
if #needs > 0 then
  return {'need', stamp, needs}
end
for _, acc in ipairs(order) do
  if not present(acc) then
    return {'more', expiries}
  end
end
if amount ~= '0' then
  local wanted = tonumber(amount)
  for _, acc in ipairs(order) do
    local given = acc.pin or acc.limit
    local limit = given == '' and MOST or math.min(tonumber(given), MOST)
    -- Both differences are exact as doubles wherever the outcome depends on a single Nano.
    if wanted > limit - acc.spent - acc.held then
      acc.pin = int(limit)
      return {'refused', describe(acc), expiries}
    end
  end
end
local on = {}
for _, acc in ipairs(order) do
  if acc.fresh then
    create(acc)
  end
  if amount ~= '0' then
    call('HINCRBY', acc.key, 'held', amount)
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
call('HSET', P .. 'h:' .. id, 'state', 'held', 'on', cmsgpack.pack(on), 'amount', amount,
  'on_expiry', on_expiry, 'expires', expires, unpack(ARGV, first, last))
call('ZADD', P .. 'holds', 0, id)
call('ZADD', P .. 'open', 0, id)
sweep()
if #expiries == 0 then
  return mask
end
return {'granted', mask, expiries}
