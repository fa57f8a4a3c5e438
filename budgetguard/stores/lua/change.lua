-- ledger.grant, ledger.set_labels and ledger.mark: changes of an account that exists.

if frozen then
  return {'frozen', frozen}
end
local name, what = take(), take()
local acc = account(name)
if not acc and not failure then
  return {'none'}
end
local answer = unready({acc})
if answer then
  return answer
end

local change = {}

function change.grant()
  local id, amount, ends, most, remembered = take(), take(), take(), tonumber(take()), tonumber(take())
  local grants = acc.grants or {}
  for i = 1, #grants, 3 do
    if grants[i] == id then
      return
    end
  end
  if acc.limit == '' then
    return
  end
  if ends == '' then
    acc.limit = int(math.min(tonumber(acc.limit) + tonumber(amount), most))
    call('HSET', acc.key, 'limit', acc.limit)
    amount, ends = '0', int(now + remembered)
  end
  if tonumber(ends) > now then
    grants[#grants + 1], grants[#grants + 2], grants[#grants + 3] = id, amount, ends
    save_grants(acc, grants)
  end
end

function change.labels()
  local labels, life = take(), take()
  set_document(acc, call('HGET', acc.key, 'rules') or '', labels, life)
end

if what == 'mark' then
  local mark, crossed = take(), call('HGET', acc.key, 'crossed') or ''
  if string.find(crossed, ',' .. mark .. ',', 1, true) then
    return {'known', expiries}
  end
  call('HSET', acc.key, 'crossed', (crossed == '' and ',' or crossed) .. mark .. ',')
  return {'first', expiries}
end
local entry = take_entry()
change[what]()
acc.updated = stamp
call('HSET', acc.key, 'updated', stamp)
keep(acc)
note(entry)
return {'balance', describe(acc), expiries}
