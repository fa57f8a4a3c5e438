-- Accounts brought up to the present, charged and described.

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
        seldom().expire(hold)
      else
        call('ZREM', P .. 'o:' .. acc.name, id)
      end
    end
  end
  return true
end

-- Note the window that the client must compute before anything may be changed.
local function foresee(acc)
  if acc.fresh or frozen or acc.parts or not is_over(acc) then
    return
  end
  local row = call('HMGET', acc.key, 'duration', 'timezone', 'anchor')
  local hint = hints[acc.name]
  if seldom().fits(hint, row[1], row[2], row[3], acc.finish) then
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
  if acc.grants or is_over(acc) then
    seldom().roll(acc)
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

local function take_entry()
  return {id = take(), text = take()}
end

-- Return the accounts that a hold is taken from, or the name of one that should exist and does not, which
-- charges count, the documents that are others than those by which the call was judged, and the names of those
-- that refuse nothing.
local function charged()
  local order, mask, unknown, outdated, shadows = {}, {}, nil, {}, {}
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
        acc = seldom().new_account(name, budget, string.find(flags, 'e') ~= nil)
        cache[name] = acc
      elseif acc and budget and string.find(flags, 'p') then
        acc.pin = budget.limit
      end
      if string.find(flags, 'h') and (not string.find(flags, 'n') or acc and acc.fresh) then
        shadows[name] = true
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
  return order, unknown, table.concat(mask), outdated, shadows
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
