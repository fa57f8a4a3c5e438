-- What bookings and time do to accounts and holds (core/booking.py, and _Book of core/ledger.py).
--
-- `parts` of a rolling account is "SPAN,EPOCH:UNTIL,EPOCH:UNTIL,": its duration in ms (nothing if it has none),
-- then its parts, oldest first, and when each falls out. What was booked in a part is in fields of the account:
-- EPOCH.spent, EPOCH.expired, EPOCH.expiries, and EPOCH:MODEL.

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

-- Limits

-- The budget's limit and the raises in force, as text; nothing if there is no limit.
local function limits_of(acc)
  if acc.limit == '' then
    return {}
  end
  local limits, terms = {acc.limit}, {1, acc.limit}
  for i = 2, #(acc.grants or {}), 3 do
    limits[#limits + 1] = acc.grants[i]
    terms[#terms + 1] = 1
    terms[#terms + 1] = acc.grants[i]
  end
  return total(terms) < MOST and limits or {int(MOST)}
end

-- limit_of; nil without a limit.
local function limit_of(acc)
  if not acc.grants then
    return tonumber(acc.limit)
  end
  local terms = {}
  for i, limit in ipairs(limits_of(acc)) do
    terms[2 * i - 1], terms[2 * i] = 1, limit
  end
  return #terms > 0 and total(terms) or nil
end

local function has_spent(spent, percent, limits)
  local terms = {100, spent}
  for _, limit in ipairs(limits) do
    terms[#terms + 1] = -percent
    terms[#terms + 1] = limit
  end
  return total(terms) >= 0
end

local function save_grants(acc, grants)
  acc.grants = #grants > 0 and grants or nil
  call('HDEL', acc.key, 'grants')
  if acc.grants then
    call('HSET', acc.key, 'grants', cjson.encode(grants))
  end
end

local function has_ended_grants(acc)
  for i = 3, #(acc.grants or {}), 3 do
    if tonumber(acc.grants[i]) <= now then
      return true
    end
  end
  return false
end

-- Bookings

-- Add to a sum, and return what it then is.
local function add(key, field, amount)
  local before = tonumber(call('HGET', key, field) or '0')
  if before >= MOST or before + tonumber(amount) > MOST then
    call('HSET', key, field, int(MOST))
    return MOST
  end
  return call('HINCRBY', key, field, amount)
end

local function add_model(key, field, amount)
  if add(key, field, amount) == 0 then
    call('HDEL', key, field)
  end
end

local function is_part(acc, epoch)
  return string.find(acc.parts, ',' .. epoch .. ':', 1, true) ~= nil
end

-- Whether what was booked in an epoch is in what an account has spent (live_epochs).
local function is_live(acc, epoch)
  if acc.parts then
    return epoch ~= '' and is_part(acc, epoch)
  end
  return acc.epoch == epoch
end

-- book_cost: expired is 1 where a hold expires, -1 where that is taken back, 0 where a cost is booked.
local function book(acc, epoch, model, cost, expired)
  local part = acc.parts and is_part(acc, epoch) and epoch
  if cost ~= '0' then
    acc.spent = add(acc.key, 'spent', cost)
    add_model(P .. 'm:' .. acc.name, model, cost)
    if part then
      add(acc.key, part .. '.spent', cost)
      add_model(acc.key, part .. ':' .. model, cost)
    end
  end
  if expired ~= 0 then
    add(acc.key, 'expired', cost)
    call('HINCRBY', acc.key, 'expiries', expired)
    if part then
      add(acc.key, part .. '.expired', cost)
      call('HINCRBY', acc.key, part .. '.expiries', expired)
    end
  end
end

local function begin_part(acc)
  local span = acc.parts and tonumber(string.match(acc.parts, '^%d+'))
  if not span then
    return
  end
  local length = math.max(1, math.floor(span / 60))
  local ends = (math.floor(now / length) + 1) * length + span
  local last = string.match(acc.parts, ':(%d+),$')
  if last and tonumber(last) >= ends then
    return
  end
  local epoch = int(call('HINCRBY', acc.key, 'epoch', 1))
  acc.epoch = epoch
  acc.parts = acc.parts .. epoch .. ':' .. int(ends) .. ','
  acc.finish = string.match(acc.parts, ':(%d+),')
  call('HSET', acc.key, 'parts', acc.parts, 'end', acc.finish, epoch .. '.spent', '0', epoch .. '.expired', '0',
    epoch .. '.expiries', '0')
end

local function release(acc, hold, window)
  -- The first write of a settle: a full server refuses scripts that begin with one that needs memory.
  local freed = call('ZREM', P .. 'o:' .. acc.name, hold.id) == 1
  local held = amounts_of(hold, acc)
  if freed and acc.window == window and held ~= '0' then
    acc.held = call('HINCRBY', acc.key, 'held', minus(held))
  end
end

local function expire(hold)
  for i = 1, #hold.on, 3 do
    local acc, window = account(hold.on[i]), hold.on[i + 1]
    if acc and not acc.fresh then
      release(acc, hold, window)
      if acc.window == window then
        local _, on_expiry = amounts_of(hold, acc)
        begin_part(acc)
        book(acc, acc.epoch, hold.model, on_expiry, 1)
        hold.on[i + 2] = acc.epoch
      end
      keep(acc)
    end
  end
  hold.state = 'expired'
  call('HSET', hold.key, 'state', 'expired', 'outcome', 'unknown', 'cost', hold.on_expiry, 'ended', stamp,
    'on', cmsgpack.pack(hold.on))
  end_units(hold, {})
  save_units(hold)
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

-- Remove what is stored of parts but of those that are left (epoch -> true), and return the rest of the fields.
local function remove_parts(acc, kept)
  local fields, stays = call('HGETALL', acc.key), {}
  for i = 1, #fields, 2 do
    local epoch = string.match(fields[i], '^(%d+)[.:]')
    if epoch and not kept[epoch] then
      call('HDEL', acc.key, fields[i])
    elseif epoch then
      stays[#stays + 1], stays[#stays + 2] = fields[i], fields[i + 1]
    end
  end
  return stays
end

local function clear(acc)
  call('DEL', P .. 'm:' .. acc.name)
  acc.epoch = int(call('HINCRBY', acc.key, 'epoch', 1))
  acc.spent = 0
  call('HSET', acc.key, 'spent', '0', 'expired', '0', 'expiries', '0', 'crossed', '')
  if acc.parts then
    remove_parts(acc, {})
    acc.parts, acc.finish = string.match(acc.parts, '^%d*,'), ''
    call('HSET', acc.key, 'parts', acc.parts, 'end', '')
  end
end

-- Windows

local function fits(hint, duration, timezone, anchor, ends)
  return hint and hint.duration == duration and hint.timezone == timezone and hint.ends == ends
    and (anchor == '' or hint.anchor == anchor)
    and tonumber(hint.start) <= now and (hint.finish == '' or now < tonumber(hint.finish))
end

-- Note the window that the client must compute before anything may be changed.
local function foresee(acc)
  if acc.fresh or frozen or acc.parts or not is_over(acc) then
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

-- Grant the next window what was left of the budget in the last, and in windows skipped since.
local function roll_over(acc)
  local row = call('HMGET', acc.key, 'rollover', 'spent', 'held')
  local most = tonumber(row[1] or '0')
  if most == 0 or acc.limit == '' then
    return
  end
  local terms, grants = {1, acc.limit, -1, row[2], -1, row[3]}, {}
  for i = 1, #(acc.grants or {}), 3 do
    if acc.grants[i] == 'rollover' then
      -- One that was granted for a window that the budget had before may have ended long ago.
      if tonumber(acc.grants[i + 2]) >= tonumber(acc.finish) then
        terms[#terms + 1], terms[#terms + 2] = 1, acc.grants[i + 1]
      end
    else
      for j = i, i + 2 do
        grants[#grants + 1] = acc.grants[j]
      end
    end
  end
  local unused = math.max(0, total(terms)) + tonumber(acc.hint.skipped) * tonumber(acc.limit)
  unused = math.min(unused, most)
  if unused > 0 and acc.hint.finish ~= '' then
    grants[#grants + 1], grants[#grants + 2], grants[#grants + 3] = 'rollover', int(unused), acc.hint.finish
  end
  save_grants(acc, grants)
end

local function next_window(acc)
  roll_over(acc)
  clear(acc)
  acc.window = int(call('HINCRBY', acc.key, 'window', 1))
  acc.held, acc.finish = 0, acc.hint.finish
  call('HSET', acc.key, 'start', acc.hint.start, 'end', acc.finish, 'held', '0')
  keep(acc)
end

-- Let the parts of a rolling window fall out that are over, and add up the others.
local function drop_parts(acc)
  local parts, kept, models = string.match(acc.parts, '^%d*,'), {}, P .. 'm:' .. acc.name
  acc.finish = ''
  for epoch, ends in string.gmatch(acc.parts, '(%d+):(%d+),') do
    if tonumber(ends) > now then
      parts = parts .. epoch .. ':' .. ends .. ','
      kept[epoch] = true
      acc.finish = acc.finish == '' and ends or acc.finish
    end
  end
  acc.parts = parts
  call('DEL', models)
  call('HSET', acc.key, 'spent', '0', 'expired', '0', 'expiries', '0', 'parts', parts, 'end', acc.finish)
  local fields = remove_parts(acc, kept)
  for i = 1, #fields, 2 do
    local mark, name = string.match(fields[i], '^%d+([.:])(.*)$')
    if mark == '.' then
      add(acc.key, name, fields[i + 1])
    else
      add_model(models, name, fields[i + 1])
    end
  end
  local row = call('HMGET', acc.key, 'spent', 'crossed')
  acc.spent = tonumber(row[1])
  local limits, crossed = limits_of(acc), ''
  if (limit_of(acc) or 0) == 0 then
    limits = {int(MOST)}
  end
  for mark in string.gmatch(row[2], '-?%d+') do
    local stays = acc.finish ~= ''
    if tonumber(mark) > 0 then
      stays = has_spent(row[1], tonumber(mark), limits)
    end
    if stays then
      crossed = (crossed == '' and ',' or crossed) .. mark .. ','
    end
  end
  if crossed ~= row[2] then
    call('HSET', acc.key, 'crossed', crossed)
  end
end

local function end_grants(acc)
  if not has_ended_grants(acc) then
    return
  end
  local grants = {}
  for i = 1, #acc.grants, 3 do
    if tonumber(acc.grants[i + 2]) > now then
      grants[#grants + 1], grants[#grants + 2], grants[#grants + 3] = unpack(acc.grants, i, i + 2)
    end
  end
  save_grants(acc, grants)
end

-- Bring an account up to the present, windows after expiries. Return whether all is done, as expire_due does.
local function present(acc, sparing)
  if acc.fresh or frozen then
    return true
  end
  if not expire_due(acc, sparing) then
    return false
  end
  local over = is_over(acc)
  if over and not acc.parts then
    next_window(acc)
  end
  end_grants(acc)
  if over and acc.parts then
    drop_parts(acc)
  end
  return true
end

-- Bring accounts up to the present. Return what the client is told instead of an answer, if that fails.
local function unready(order, sparing)
  if failure then
    return failure
  end
  for _, acc in ipairs(order) do
    foresee(acc)
  end
  if #needs > 0 then
    return {'need', stamp, needs}
  end
  for _, acc in ipairs(order) do
    if not present(acc, sparing) then
      return {'more', expiries}
    end
  end
end
