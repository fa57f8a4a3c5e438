-- ledger.read and ledger.reset: an account as it stands now; a reset sets its spend to nothing.

local name, resetting = take(), take() == '1'
local acc = account(name)
if frozen and resetting then
  return {'frozen', frozen}
end
if failure and resetting and failure[1] == 'damaged' then
  -- Its spend is reset anyway; what it holds is the sum of its holds.
  local held = 0
  for _, id in ipairs(call('ZRANGE', P .. 'o:' .. name, 0, -1)) do
    local hold = load(id)
    held = held + (hold and hold.state == 'held' and is_whole(hold.amount) and tonumber(hold.amount) or 0)
  end
  held = int(math.min(held, MOST))
  call('HSET', P .. 'a:' .. name, 'spent', '0', 'expired', '0', 'expiries', '0', 'held', held)
  cache, failure = {}, false
  acc = account(name)
end
if failure then
  return failure
end
if not acc then
  return {'none'}
end
foresee(acc)
if #needs > 0 then
  return {'need', stamp, needs}
end
if not present(acc) then
  return {'more', expiries}
end
if resetting then
  clear(acc)
  acc.updated = stamp
  call('HSET', acc.key, 'updated', stamp)
  keep(acc)
end
return {'balance', describe(acc), expiries}
