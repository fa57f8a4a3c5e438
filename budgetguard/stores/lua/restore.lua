-- Insert or replace rows as another store exported them, each after a letter for its kind.

if not frozen then
  return 'in use'
end

local function pairs_into(key)
  for _ = 1, tonumber(take()) do
    call('HSET', key, take(), take())
  end
end

local put = {}

function put.hold()
  local id, expires, since = take(), take(), take()
  local key, on = P .. 'h:' .. id, {}
  call('DEL', key)
  pairs_into(key)
  for i = 1, tonumber(take()) do
    on[i] = take()
  end
  call('HSET', key, 'on', cmsgpack.pack(on))
  call('ZADD', P .. 'holds', 0, id)
  for _ = 1, tonumber(take()) do
    local answer = take()
    call('HSET', P .. 'answers', answer, id)
    call('ZADD', P .. 'waiting', expires, answer)
  end
  if since == '' then
    call('ZREM', P .. 'ended', id)
    call('ZADD', P .. 'open', 0, id)
  else
    gone({id = id, key = key}, since)
  end
end

function put.account()
  local acc = {name = take(), ephemeral = take() == '1', updated = take()}
  acc.key = P .. 'a:' .. acc.name
  call('DEL', acc.key, P .. 'm:' .. acc.name, P .. 'o:' .. acc.name)
  call('ZREM', P .. 'idle', acc.name)
  pairs_into(acc.key)
  pairs_into(P .. 'm:' .. acc.name)
  for _ = 1, tonumber(take()) do
    local id = take()
    call('ZADD', P .. 'o:' .. acc.name, take(), id)
  end
  call('ZADD', P .. 'accounts', 0, acc.name)
  call('ZREM', P .. 'gone', acc.name)
  keep(acc)
end

function put.removed()
  forget(take())
end

function put.model()
  local model = take()
  call('DEL', P .. 'b:' .. model)
  pairs_into(P .. 'b:' .. model)
  call('SADD', P .. 'models', model)
end

function put.swept()
  local id = take()
  if id > (call('GET', P .. 'swept') or '') then
    call('SET', P .. 'swept', id)
  end
end

function put.scopes()
  call('SET', P .. 'scopes', take())
  call('SET', P .. 'scopes.rules', take())
end

function put.entry()
  note(take_entry())
end

while at < #ARGV do
  put[take()]()
end
return 'done'
