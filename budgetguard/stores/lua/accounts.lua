-- Accounts made, charged, described and forgotten, and what is swept and told.

-- Every budget but a plain one of a charge has more words.
local function take_budget(more)
  local budget = {limit = take(), duration = take(), timezone = take(), starts = take(), life = take()}
  if more then
    budget.parts, budget.rollover, budget.rules = take(), take(), take()
  else
    budget.parts, budget.rollover, budget.rules = '', '0', ''
  end
  return budget
end

local function new_account(name, budget, ephemeral)
  local start, finish, anchor = nil, '', budget.starts
  if budget.duration == '' or budget.parts ~= '' then
    if anchor == '' then
      anchor = stamp
    end
    start = budget.parts ~= '' and stamp or int(math.min(tonumber(anchor), now))
  elseif fits(hints[name], budget.duration, budget.timezone, anchor, '') then
    local hint = hints[name]
    anchor, start, finish = hint.anchor, hint.start, hint.finish
  else
    needs[#needs + 1] = {name, budget.duration, budget.timezone, anchor, ''}
  end
  local fresh = start and {
    'limit', budget.limit, 'duration', budget.duration, 'timezone', budget.timezone, 'anchor', anchor,
    'start', start, 'end', finish, 'window', budget.life, 'epoch', budget.life, 'spent', '0',
    'held', '0', 'expired', '0', 'expiries', '0', 'crossed', '', 'created', stamp, 'updated', stamp,
    'ephemeral', ephemeral and '1' or '0',
  } or {}
  local function put(field, value)
    fresh[#fresh + 1], fresh[#fresh + 2] = field, value
  end
  if budget.parts ~= '' then
    put('parts', budget.parts)
  end
  if budget.rollover ~= '0' then
    put('rollover', budget.rollover)
  end
  if budget.rules ~= '' then
    put('rules', budget.rules)
    put('revision', budget.life)
  end
  return {
    name = name, key = P .. 'a:' .. name, limit = budget.limit, spent = 0, held = 0, finish = finish,
    window = budget.life, epoch = budget.life, updated = stamp, ephemeral = ephemeral, unit = unit_of(name),
    parts = budget.parts ~= '' and budget.parts or nil, fresh = fresh,
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

-- Return the accounts that a hold is taken from, or the name of one that should exist and does not, which
-- charges count, and the documents that are others than those by which the call was judged.
local function charged()
  local order, mask, unknown, outdated = {}, {}, nil, {}
  for i = 1, tonumber(take()) do
    local name, flags = take(), take()
    local revision = string.find(flags, 'v') and take() or '0'
    local budget = string.find(flags, 'b') and take_budget(string.find(flags, 'x'))
    mask[i] = '0'
    if not unknown then
      local acc = account(name)
      if not acc and string.find(flags, 's') and not call('ZSCORE', P .. 'gone', name)
        and not call('ZSCORE', P .. 'idle', name) then
        failure = failure or {'lost', name}
      end
      if not acc and revision ~= '0' then
        outdated[#outdated + 1] = {name, '0', '', ''}
      elseif acc and not acc.charged and acc.revision ~= revision then
        local row = call('HMGET', acc.key, 'rules', 'labels')
        outdated[#outdated + 1] = {name, acc.revision, row[1] or '', row[2] or ''}
      end
      if not acc and budget then
        acc = new_account(name, budget, string.find(flags, 'e') ~= nil)
        cache[name] = acc
      elseif acc and budget and string.find(flags, 'p') then
        acc.pin = budget.limit
      end
      if acc and string.find(flags, 'h') then
        acc.shadow = true
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
  return order, unknown, table.concat(mask), outdated
end

-- As it stands, or with the limit by which it was judged in place of its own and of its grants.
local function describe(acc, judged)
  local fields = {}
  for i, word in ipairs(acc.fresh or call('HGETALL', acc.key)) do
    fields[i] = word
  end
  for _, word in ipairs(judged and {'limit', judged, 'grants', ''} or {}) do
    fields[#fields + 1] = word
  end
  if acc.fresh then
    return {acc.name, fields, {}, 0}
  end
  return {acc.name, fields, call('HGETALL', P .. 'm:' .. acc.name), call('ZCARD', P .. 'o:' .. acc.name)}
end

-- set_document
local function set_document(acc, rules, labels, life)
  local row = call('HMGET', acc.key, 'rules', 'labels')
  if rules == (row[1] or '') and labels == (row[2] or '') then
    return
  end
  if rules == '' and labels == '' then
    call('HDEL', acc.key, 'rules', 'labels', 'revision')
  else
    call('HSET', acc.key, 'rules', rules, 'labels', labels, 'revision', life)
  end
end

local function take_entry()
  return {id = take(), text = take()}
end

local function note(entry)
  if entry.id ~= '' and call('HSETNX', P .. 'entries', entry.id, entry.text) == 1 then
    call('ZADD', P .. 'trail', 0, entry.id)
  end
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
