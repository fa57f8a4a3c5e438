-- ledger.present_hold: a hold as it stands now, by its id or by the answer that it waits for.

local by, id = take(), take()
if by == 'answer' then
  id = call('HGET', P .. 'answers', id)
end
local hold = id and load(id)
if not hold then
  return {'none'}
end
if not frozen and hold.state == 'held' and tonumber(hold.expires) <= now then
  local order = {}
  for i = 1, #hold.on, 3 do
    local acc = account(hold.on[i])
    if acc then
      order[#order + 1] = acc
    end
  end
  local answer = unready(order)
  if answer then
    return answer
  end
  if hold.state == 'held' then
    expire(hold)
  end
end
return {'hold', id, call('HGETALL', hold.key), hold.on, expiries}
