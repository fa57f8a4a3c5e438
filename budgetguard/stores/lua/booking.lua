-- Sums, and what every verb does to accounts.

-- Let an ephemeral account without open holds be removed once it has been idle for the retention.
local function keep(acc)
  if not acc.ephemeral then
    return
  end
  if call('ZCARD', P .. 'o:' .. acc.name) == 0 then
    call('ZADD', P .. 'idle', acc.updated, acc.name)
    if dated then
      local last = int(tonumber(acc.updated) + retention)
      call('PEXPIREAT', acc.key, last)
      call('PEXPIREAT', P .. 'm:' .. acc.name, last)
    end
  else
    call('ZREM', P .. 'idle', acc.name)
    call('PERSIST', acc.key)
    call('PERSIST', P .. 'm:' .. acc.name)
  end
end

local function gone(hold, since)
  call('ZREM', P .. 'open', hold.id)
  call('ZADD', P .. 'ended', since, hold.id)
  if dated then
    call('PEXPIREAT', hold.key, int(tonumber(since) + retention))
  end
end

-- Add to a sum, and return what it then is.
local function add(key, field, amount)
  local before = tonumber(call('HGET', key, field) or '0')
  if before >= MOST or before + tonumber(amount) > MOST then
    call('HSET', key, field, int(MOST))
    return MOST
  end
  return call('HINCRBY', key, field, amount)
end

-- book_cost: expired is 1 where a hold expires, -1 where that is taken back, 0 where a cost is booked.
local function book(acc, epoch, model, cost, expired)
  if cost ~= '0' then
    acc.spent = add(acc.key, 'spent', cost)
    if add(P .. 'm:' .. acc.name, model, cost) == 0 then
      call('HDEL', P .. 'm:' .. acc.name, model)
    end
  end
  if expired ~= 0 then
    add(acc.key, 'expired', cost)
    call('HINCRBY', acc.key, 'expiries', expired)
  end
  if acc.parts then
    seldom().book_part(acc, epoch, model, cost, expired)
  end
end

local function release(acc, hold, window)
  -- The first write of a settle: a full server refuses scripts that begin with one that needs memory.
  local freed = call('ZREM', P .. 'o:' .. acc.name, hold.id) == 1
  local held = amounts_of(hold, acc)
  if freed and acc.window == window and held ~= '0' then
    acc.held = call('HINCRBY', acc.key, 'held', minus(held))
  end
end
