-- ledger.read and ledger.reset: an account as it stands now; a reset sets its spend to nothing.

local name, resetting = take(), take() == '1'
local acc = account(name)
if frozen and resetting then
  return {'frozen', frozen}
end
if failure and resetting and failure[1] == 'damaged' then
  -- Its spend is reset anyway; what it holds is the sum of its holds.
  local held, damaged = 0, {unit = unit_of(name)}
  for _, id in ipairs(call('ZRANGE', P .. 'o:' .. name, 0, -1)) do
    local hold = load(id)
    local amount = hold and hold.state == 'held' and amounts_of(hold, damaged)
    held = held + (amount and is_whole(amount) and tonumber(amount) or 0)
  end
  held = int(math.min(held, MOST))
  local key = P .. 'a:' .. name
  call('HSET', key, 'spent', '0', 'expired', '0', 'expiries', '0', 'held', held)
  local span = string.match(call('HGET', key, 'parts') or '', '^%d*,')
  if span then
    call('HSET', key, 'parts', span, 'end', '')
  end
  cache, failure = {}, false
  acc = account(name)
end
if not acc and not failure then
  return {'none'}
end
local answer = unready({acc})
if answer then
  return answer
end
if resetting then
  clear(acc)
  acc.updated = stamp
  call('HSET', acc.key, 'updated', stamp)
  keep(acc)
  note(take_entry())
end
return {'balance', describe(acc), expiries}
