-- ledger.read and ledger.reset: how an account stands now; a reset forgets what it has spent.

local acc, resetting = account(take()), take() == '1'
if moved and resetting then
  return {'moved', moved}
end
if not acc then
  return {'none'}
end
foresee(acc)
if #needs > 0 then
  return {'need', stamp, needs}
end
if not present(acc) then
  return {'more', lapses}
end
if resetting then
  clear(acc)
  acc.updated = stamp
  call('HSET', acc.key, 'updated', stamp)
  keep(acc)
end
return {'balance', describe(acc), lapses}
