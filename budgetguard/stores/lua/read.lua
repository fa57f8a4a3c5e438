-- ledger.read and ledger.reset: how an account stands now; a reset forgets what it has spent.

local name, resetting = take(), take() == '1'
local acc = account(name)
if moved and resetting then
  return {'moved', moved}
end
if failure and resetting and failure[1] == 'damaged' then
  -- What it has spent is forgotten anyway; what it holds is what its holds are.
  local held = 0
  for _, id in ipairs(call('ZRANGE', P .. 'o:' .. name, 0, -1)) do
    local hold = load(id)
    held = held + (hold and hold.state == 'held' and is_whole(hold.amount) and tonumber(hold.amount) or 0)
  end
  call('HSET', P .. 'a:' .. name, 'spent', '0', 'expired', '0', 'expiries', '0', 'held', int(math.min(held, MOST)))
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
