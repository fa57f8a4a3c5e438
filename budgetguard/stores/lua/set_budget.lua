-- ledger.set_budget: make an account, or change the limit and window of one and keep its spend.
--
-- The new window depends on the row: the client computes it from what this answers, and calls again; it
-- counts if the row is still the same. A rolling account keeps its own.

if frozen then
  return {'frozen', frozen}
end
local name, budget, ephemeral, entry = take(), take_budget(true), take() == '1', take_entry()
local given, seen = take() == '1', {duration = take(), timezone = take(), anchor = take()}
local window = {anchor = take(), start = take(), finish = take()}

local acc = account(name)
if failure and failure[1] == 'lost' then
  forget(name)  -- remove what is left of it; it is made anew
  failure = false
elseif failure then
  return failure
end
if not acc then
  acc = new_account(name, budget, ephemeral)
  if #needs > 0 then
    return {'need', stamp, needs}
  end
  create(acc)
  keep(acc)
  note(entry)
  return {'balance', describe(acc), expiries}
end
local answer = unready({acc})
if answer then
  return answer
end
if not acc.parts then
  local row = call('HMGET', acc.key, 'duration', 'timezone', 'anchor', 'start')
  local instant = math.max(now, tonumber(row[4]))
  if not given or row[1] ~= seen.duration or row[2] ~= seen.timezone or row[3] ~= seen.anchor
    or instant < tonumber(window.start) or (window.finish ~= '' and instant >= tonumber(window.finish)) then
    return {'row', stamp, row, expiries}
  end
  call('HSET', acc.key, 'duration', budget.duration, 'timezone', budget.timezone, 'anchor', window.anchor,
    'start', window.start, 'end', window.finish)
end
acc.updated = stamp
call('HSET', acc.key, 'limit', budget.limit, 'updated', stamp)
if budget.rollover == '0' then
  call('HDEL', acc.key, 'rollover')
else
  call('HSET', acc.key, 'rollover', budget.rollover)
end
set_document(acc, budget.rules, call('HGET', acc.key, 'labels') or '', budget.life)
keep(acc)
note(entry)
return {'balance', describe(acc), expiries}
