-- ledger.save_scopes: replace the project's scopes if they are those that the client has seen.

if frozen then
  return {'frozen', frozen}
end
local revision, rules, seen, entry = take(), take(), take(), take_entry()
if (scopes or '0') ~= seen then
  -- Sent again after an answer that was lost, it had been done.
  local done = scopes == revision and entry.id ~= '' and call('HEXISTS', P .. 'entries', entry.id) == 1
  return done and 1 or 0
end
call('SET', P .. 'scopes', revision)
call('SET', P .. 'scopes.rules', rules)
note(entry)
return 1
