-- ledger.attach: note which answer of the provider's a hold waits for.

if frozen then
  return {'frozen', frozen}
end
local id, request = take(), take()
local hold = load(id)
if not hold or hold.state == 'settled' or hold.state == 'voided' then
  return 0
end
call('HSET', hold.key, 'request_id', request)
call('HSET', P .. 'answers', request, id)
call('ZADD', P .. 'waiting', hold.expires, request)
return 1
