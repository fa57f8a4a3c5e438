-- ledger.delete: remove an account. Its open holds stay with their other accounts, or are charged to nobody.

if frozen then
  return {'frozen', frozen}
end
local name, entry = take(), take_entry()
local acc = account(name)
if not acc and not failure then
  call('ZADD', P .. 'gone', stamp, name)
  return {'none'}
end
-- A lost or damaged one is removed all the same.
acc = acc or {name = name, key = P .. 'a:' .. name}
failure = false
if not expire_due(acc) then
  return {'more', expiries}
end
for _, id in ipairs(call('ZRANGE', P .. 'o:' .. acc.name, 0, -1)) do
  local hold = load(id)
  if hold then
    local on = {}
    for i = 1, #hold.on, 3 do
      if hold.on[i] ~= acc.name then
        on[#on + 1], on[#on + 2], on[#on + 3] = hold.on[i], hold.on[i + 1], hold.on[i + 2]
      end
    end
    call('HSET', hold.key, 'on', cmsgpack.pack(on))
    if #on == 0 then
      gone(hold, hold.expires)
    end
  end
end
forget(name)
note(entry)
return {'deleted', expiries}
