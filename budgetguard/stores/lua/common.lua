-- The beginning of every script: arguments, the clock, rows, and what time alone changes (core/ledger.py).
--
-- KEYS[1] is the project's prefix; every key below begins with it and so shares its hash tag:
--   a:NAME   an account's fields        m:NAME  what it spent by model   o:NAME  its open holds by expiry
--   h:ID     a hold's fields            b:MODEL buckets of answer lengths
--   accounts, holds, open               names and ids in order, for listings
--   ended, idle, waiting                what may be removed, by the time since when
--   answers                             a provider's answer -> the hold that waits for it
--   models                              models whose answers have buckets
--   gone                                accounts that were deleted or removed, by the time since when
--   swept                               the greatest id of a hold whose record was swept
--   frozen                              the note of a frozen project: nothing of it changes
-- Money is only ever added by HINCRBY, which is exact. A Lua number is a double, exact to 2^53, and
-- redis.call() may write it with an exponent, so numbers are written through int(). Sums stop at MOST and
-- stay there (money.add_bounded), to within the hundred Nanos that a double resolves there.
--
-- A server may lose keys: it evicts, is flushed, or comes back empty. The verb then fails and changes
-- nothing: with {'lost', name} where an account is missing that is listed, or that the client has seen and
-- nobody deleted; with {'damaged', name} where an account has no number where one must be.

local call = redis.call
local P = KEYS[1]
local at = 0
local BATCH = 200
local MOST = 1152921504606846976

local function take()
  at = at + 1
  return ARGV[at]
end

local function int(number)
  return string.format('%.0f', number)
end

local function minus(amount)
  return amount == '0' and '0' or '-' .. amount
end

-- Without a time from the client the server's clock counts, and only then may keys expire by it.
local stamp = take()
local dated = stamp == ''
if dated then
  local time = call('TIME')
  stamp = int(time[1] * 1000 + math.floor(time[2] / 1000))
end
local now = tonumber(stamp)
local retention = tonumber(take())
local sweeping = tonumber(take())

-- Windows that the client has computed, since calendars and time zones are unknown here.
local hints = {}
for _ = 1, tonumber(take()) do
  local hint = {name = take(), duration = take(), timezone = take(), anchor = take(), ends = take()}
  hint.start, hint.finish = take(), take()
  hints[hint.name] = hint
end

local frozen = call('GET', P .. 'frozen')
-- The first failure found. Nothing may have been changed before it is returned.
local failure = false

local function is_whole(text)
  return #text <= 20 and string.find(text, '^-?%d+$') ~= nil
end

local cache, holds = {}, {}
local needs, expiries = {}, {}
local left = BATCH

local function fits(hint, duration, timezone, anchor, ends)
  return hint and hint.duration == duration and hint.timezone == timezone and hint.ends == ends
    and (anchor == '' or hint.anchor == anchor)
    and tonumber(hint.start) <= now and (hint.finish == '' or now < tonumber(hint.finish))
end

local function account(name)
  local found = cache[name]
  if found == nil then
    local key = P .. 'a:' .. name
    local row = call(
      'HMGET', key, 'limit', 'spent', 'held', 'end', 'window', 'epoch', 'updated', 'ephemeral')
    -- The server expires an idle account by itself; `accounts` and `idle` list it until they are swept.
    if not row[5] and call('ZSCORE', P .. 'accounts', name) and not call('ZSCORE', P .. 'idle', name) then
      failure = failure or {'lost', name}
    end
    local sound = row[5]
    for i = 1, sound and 7 or 0 do
      local may_be_empty = i == 1 or i == 4
      if not row[i] or not (is_whole(row[i]) or (may_be_empty and row[i] == '')) then
        failure = failure or {'damaged', name}
        sound = false
      end
    end
    found = sound and {
      name = name, key = key, limit = row[1], spent = tonumber(row[2]), held = tonumber(row[3]),
      finish = row[4], window = row[5], epoch = row[6], updated = row[7], ephemeral = row[8] == '1',
    }
    cache[name] = found
  end
  return found
end

local function load(id)
  local found = holds[id]
  if found == nil then
    local row = call(
      'HMGET', P .. 'h:' .. id, 'state', 'on', 'amount', 'on_expiry', 'model', 'expires', 'user')
    found = row[1] and {
      id = id, key = P .. 'h:' .. id, state = row[1], on = cmsgpack.unpack(row[2]), amount = row[3],
      on_expiry = row[4], model = row[5], expires = row[6], user = row[7],
    }
    holds[id] = found
  end
  return found
end

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

local function book(acc, model, cost)
  if cost == '0' then
    return
  end
  acc.spent = add(acc.key, 'spent', cost)
  if add(P .. 'm:' .. acc.name, model, cost) == 0 then
    call('HDEL', P .. 'm:' .. acc.name, model)
  end
end

local function release(acc, hold, window)
  -- The first write of a settle: a full server refuses scripts that begin with one that needs memory.
  local freed = call('ZREM', P .. 'o:' .. acc.name, hold.id) == 1
  if freed and acc.window == window and hold.amount ~= '0' then
    acc.held = call('HINCRBY', acc.key, 'held', minus(hold.amount))
  end
end

local function expire(hold)
  for i = 1, #hold.on, 3 do
    local acc, window = account(hold.on[i]), hold.on[i + 1]
    if acc and not acc.fresh then
      release(acc, hold, window)
      if acc.window == window then
        book(acc, hold.model, hold.on_expiry)
        add(acc.key, 'expired', hold.on_expiry)
        call('HINCRBY', acc.key, 'expiries', 1)
        hold.on[i + 2] = acc.epoch
      end
      keep(acc)
    end
  end
  hold.state = 'expired'
  call('HSET', hold.key, 'state', 'expired', 'outcome', 'unknown', 'cost', hold.on_expiry, 'ended', stamp,
    'on', cmsgpack.pack(hold.on))
  gone(hold, stamp)
  local names = {}
  for i = 1, #hold.on, 3 do
    names[#names + 1] = hold.on[i]
  end
  expiries[#expiries + 1] = {hold.id, names, hold.amount, hold.on_expiry, hold.model, hold.user}
end

-- Expire the holds of an account that are due. Return false if some are left: what was done stays, and the
-- client sends the verb again.
local function expire_due(acc, sparing)
  local due = call('ZRANGEBYSCORE', P .. 'o:' .. acc.name, '-inf', stamp, 'LIMIT', 0, left + 2)
  for _, id in ipairs(due) do
    if id ~= sparing then
      if left == 0 then
        return false
      end
      left = left - 1
      local hold = load(id)
      if hold and hold.state == 'held' then
        expire(hold)
      else
        call('ZREM', P .. 'o:' .. acc.name, id)
      end
    end
  end
  return true
end

local function clear(acc)
  call('DEL', P .. 'm:' .. acc.name)
  acc.epoch = int(call('HINCRBY', acc.key, 'epoch', 1))
  acc.spent = 0
  call('HSET', acc.key, 'spent', '0', 'expired', '0', 'expiries', '0', 'crossed', '')
end

local function is_over(acc)
  return acc.finish ~= '' and now >= tonumber(acc.finish)
end

-- Note the window that the client must compute before anything may be changed.
local function foresee(acc)
  if acc.fresh or frozen or not is_over(acc) then
    return
  end
  local row = call('HMGET', acc.key, 'duration', 'timezone', 'anchor')
  local hint = hints[acc.name]
  if fits(hint, row[1], row[2], row[3], acc.finish) then
    acc.hint = hint
  else
    needs[#needs + 1] = {acc.name, row[1], row[2], row[3], acc.finish}
  end
end

-- Bring an account up to the present, windows after expiries. Return whether all is done, as expire_due does.
local function present(acc, sparing)
  if acc.fresh or frozen then
    return true
  end
  if not expire_due(acc, sparing) then
    return false
  end
  if is_over(acc) then
    clear(acc)
    acc.window = int(call('HINCRBY', acc.key, 'window', 1))
    acc.held, acc.finish = 0, acc.hint.finish
    call('HSET', acc.key, 'start', acc.hint.start, 'end', acc.finish, 'held', '0')
    keep(acc)
  end
  return true
end

local function new_account(name, budget, ephemeral)
  local start, finish, anchor = nil, '', budget.starts
  if budget.duration == '' then
    if anchor == '' then
      anchor = stamp
    end
    start = int(math.min(tonumber(anchor), now))
  elseif fits(hints[name], budget.duration, budget.timezone, anchor, '') then
    local hint = hints[name]
    anchor, start, finish = hint.anchor, hint.start, hint.finish
  else
    needs[#needs + 1] = {name, budget.duration, budget.timezone, anchor, ''}
  end
  return {
    name = name, key = P .. 'a:' .. name, limit = budget.limit, spent = 0, held = 0, finish = finish,
    window = budget.life, epoch = budget.life, updated = stamp, ephemeral = ephemeral,
    fresh = start and {
      'limit', budget.limit, 'duration', budget.duration, 'timezone', budget.timezone, 'anchor', anchor,
      'start', start, 'end', finish, 'window', budget.life, 'epoch', budget.life, 'spent', '0',
      'held', '0', 'expired', '0', 'expiries', '0', 'crossed', '', 'created', stamp, 'updated', stamp,
      'ephemeral', ephemeral and '1' or '0',
    } or {},
  }
end

local function create(acc)
  call('HSET', acc.key, unpack(acc.fresh))
  call('ZADD', P .. 'accounts', 0, acc.name)
  call('ZREM', P .. 'gone', acc.name)
  call('ZREM', P .. 'idle', acc.name)
  acc.fresh = nil
end

local function forget(name)
  call('DEL', P .. 'a:' .. name, P .. 'm:' .. name, P .. 'o:' .. name)
  call('ZREM', P .. 'accounts', name)
  call('ZREM', P .. 'idle', name)
  call('ZADD', P .. 'gone', stamp, name)
end

local function take_budget()
  return {limit = take(), duration = take(), timezone = take(), starts = take(), life = take()}
end

-- Return the accounts that a hold is taken from, or the name of one that should exist and does not, and which
-- charges count.
local function charged()
  local order, mask, unknown = {}, {}, nil
  for i = 1, tonumber(take()) do
    local name, flags = take(), take()
    local budget = string.find(flags, 'b') and take_budget()
    mask[i] = '0'
    if not unknown then
      local acc = account(name)
      if not acc and string.find(flags, 's') and not call('ZSCORE', P .. 'gone', name)
        and not call('ZSCORE', P .. 'idle', name) then
        failure = failure or {'lost', name}
      end
      if not acc and budget then
        acc = new_account(name, budget, string.find(flags, 'e') ~= nil)
        cache[name] = acc
      elseif acc and budget and string.find(flags, 'p') then
        acc.pin = budget.limit
      end
      if acc and not acc.charged then
        acc.charged = true
        order[#order + 1] = acc
        mask[i] = '1'
      elseif not acc and string.find(flags, 'r') then
        unknown = name
      end
    end
  end
  return order, unknown, table.concat(mask)
end

local function describe(acc)
  local fields = acc.fresh or call('HGETALL', acc.key)
  if acc.pin then
    fields[#fields + 1] = 'limit'
    fields[#fields + 1] = acc.pin
  end
  if acc.fresh then
    return {acc.name, fields, {}, 0}
  end
  return {acc.name, fields, call('HGETALL', P .. 'm:' .. acc.name), call('ZCARD', P .. 'o:' .. acc.name)}
end

-- The greatest id that was swept, with one more record gone. A hold dated in the future does not count: its
-- id would stand for calls that were never recorded.
local function swept_with(swept, id)
  if id > swept and id < string.format('%012x', math.max(now - retention, 0)) then
    return id
  end
  return swept
end

local function sweep()
  if sweeping == 0 then
    return
  end
  local horizon = '(' .. int(now - retention)
  local before = call('GET', P .. 'swept') or ''
  local swept = before
  for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'ended', '-inf', horizon, 'LIMIT', 0, sweeping)) do
    call('DEL', P .. 'h:' .. id)
    call('ZREM', P .. 'holds', id)
    call('ZREM', P .. 'ended', id)
    swept = swept_with(swept, id)
  end
  if swept ~= before then
    call('SET', P .. 'swept', swept)
  end
  for _, answer in ipairs(call('ZRANGEBYSCORE', P .. 'waiting', '-inf', horizon, 'LIMIT', 0, sweeping)) do
    call('HDEL', P .. 'answers', answer)
    call('ZREM', P .. 'waiting', answer)
  end
  for _, name in ipairs(call('ZRANGEBYSCORE', P .. 'idle', '-inf', horizon, 'LIMIT', 0, sweeping)) do
    local acc = account(name)
    local stays = acc and (not acc.ephemeral or tonumber(acc.updated) >= now - retention)
    if not stays then
      forget(name)
    end
    call('ZREM', P .. 'idle', name)
  end
  call('ZREMRANGEBYSCORE', P .. 'gone', '-inf', horizon)
end
