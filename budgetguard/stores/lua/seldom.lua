-- What few calls need (core/booking.py, and _Book of core/ledger.py): a script makes its functions anew each
-- time it runs, so these are made when they are first asked for.
--
-- `parts` of a rolling account is "SPAN,EPOCH:UNTIL,EPOCH:UNTIL,": its duration in ms (nothing if it has none),
-- then its parts, oldest first, and when each falls out. What was booked in a part is in fields of the account:
-- EPOCH.spent, EPOCH.expired, EPOCH.expiries, and EPOCH:MODEL.

local made

function seldom()
  if made then
    return made
  end

  -- Numbers

  -- Factors and numbers as text in turn: the sum of their products, rounded once. So it is exact up to 2^53,
  -- and of the right sign always.
  local function total(terms)
    local billions, rest = 0, 0
    for i = 1, #terms, 2 do
      local sign, digits = string.match(terms[i + 1], '^(-?)(%d+)$')
      local factor = sign == '-' and -terms[i] or terms[i]
      if #digits > 9 then
        billions = billions + factor * tonumber(string.sub(digits, 1, -10))
      end
      rest = rest + factor * tonumber(string.sub(digits, -9))
    end
    return billions * 1000000000 + rest
  end

  -- Grants

  local function grants_of(text)
    local sound, grants = pcall(cjson.decode, text)
    if not sound or type(grants) ~= 'table' then
      return nil
    end
    for i = 1, #grants, 3 do
      for j = i, i + 2 do
        if type(grants[j]) ~= 'string' or j > i and not is_whole(grants[j]) then
          return nil
        end
      end
    end
    return grants
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

  local function end_grants(acc)
    local grants = {}
    for i = 1, #acc.grants, 3 do
      if tonumber(acc.grants[i + 2]) > now then
        grants[#grants + 1], grants[#grants + 2], grants[#grants + 3] = unpack(acc.grants, i, i + 2)
      end
    end
    save_grants(acc, grants)
  end

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

  -- Whether an account with grants has too little for an amount.
  local function lacks(acc, wanted)
    local row = call('HMGET', acc.key, 'spent', 'held')
    local terms = {-1, row[1], -1, row[2], -1, wanted}
    for _, limit in ipairs(limits_of(acc)) do
      terms[#terms + 1], terms[#terms + 2] = 1, limit
    end
    return total(terms) < 0
  end

  local function has_spent(spent, percent, limits)
    local terms = {100, spent}
    for _, limit in ipairs(limits) do
      terms[#terms + 1] = -percent
      terms[#terms + 1] = limit
    end
    return total(terms) >= 0
  end

  -- Of an account with grants: whether it has spent this share of its limit, to the Nano.
  local function has_reached(acc, percent)
    local limits = limits_of(acc)
    return limit_of(acc) > 0 and has_spent(call('HGET', acc.key, 'spent'), percent, limits)
  end

  -- Rolling windows

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

  local function has_parts(acc)
    for epoch in string.gmatch(acc.parts, '(%d+):') do
      for _, sum in ipairs(call('HMGET', acc.key, epoch .. '.spent', epoch .. '.expired', epoch .. '.expiries')) do
        if not sum or not is_whole(sum) then
          return false
        end
      end
    end
    return true
  end

  local function add_model(key, field, amount)
    if add(key, field, amount) == 0 then
      call('HDEL', key, field)
    end
  end

  -- Of book: what was booked in an epoch, if that is a part.
  local function book_part(acc, epoch, model, cost, expired)
    if not is_part(acc, epoch) then
      return
    end
    if cost ~= '0' then
      add(acc.key, epoch .. '.spent', cost)
      add_model(acc.key, epoch .. ':' .. model, cost)
    end
    if expired ~= 0 then
      add(acc.key, epoch .. '.expired', cost)
      call('HINCRBY', acc.key, epoch .. '.expiries', expired)
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

  -- What time brings about

  -- Note what was booked of each unit: costs[unit], or what is booked on expiry.
  local function end_units(hold, costs)
    hold.units = string.gsub(
      hold.units, '([^ ,]+) (%d+) (%d+) %d+', function(unit, held, on_expiry)
        return unit .. ' ' .. held .. ' ' .. on_expiry .. ' ' .. (costs[unit] or on_expiry)
      end)
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
    if hold.units then
      end_units(hold, {})
      call('HSET', hold.key, 'units', hold.units)
    end
    gone(hold, stamp)
    local names = {}
    for i = 1, #hold.on, 3 do
      names[#names + 1] = hold.on[i]
    end
    expiries[#expiries + 1] = {hold.id, names, hold.amount, hold.on_expiry, hold.model, hold.user}
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

  local function fits(hint, duration, timezone, anchor, ends)
    return hint and hint.duration == duration and hint.timezone == timezone and hint.ends == ends
      and (anchor == '' or hint.anchor == anchor)
      and tonumber(hint.start) <= now and (hint.finish == '' or now < tonumber(hint.finish))
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

  -- Go on to the present window, and end what is over.
  local function roll(acc)
    local over = is_over(acc)
    if over and not acc.parts then
      next_window(acc)
    end
    if has_ended_grants(acc) then
      end_grants(acc)
    end
    if over and acc.parts then
      drop_parts(acc)
    end
  end

  -- Accounts made, changed and forgotten, and the audit trail

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

  local function note(entry)
    if entry.id ~= '' and call('HSETNX', P .. 'entries', entry.id, entry.text) == 1 then
      call('ZADD', P .. 'trail', 0, entry.id)
    end
  end

  -- What is swept

  -- The greatest id that was swept, with one more record gone. A hold dated in the future does not count: its
  -- id would stand for calls that were never recorded.
  local function swept_with(swept, id)
    if id > swept and id < string.format('%012x', math.max(now - retention, 0)) then
      return id
    end
    return swept
  end

  local function sweep()
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

  made = {
    is_live = is_live,
    clear = clear,
    limit_of = limit_of,
    has_reached = has_reached,
    lacks = lacks,
    grants_of = grants_of,
    save_grants = save_grants,
    has_ended_grants = has_ended_grants,
    has_parts = has_parts,
    begin_part = begin_part,
    book_part = book_part,
    end_units = end_units,
    expire = expire,
    fits = fits,
    roll = roll,
    new_account = new_account,
    create = create,
    forget = forget,
    set_document = set_document,
    note = note,
    swept_with = swept_with,
    sweep = sweep,
  }
  return made
end
