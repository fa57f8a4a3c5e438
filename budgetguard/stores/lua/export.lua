-- Rows as they are stored: holds by their ids (`holds`, `open`), those that ended since a time (`ended`), or
-- `accounts` by their names, with the holds that they are made of and that may not have been seen yet.

local what, low, size = take(), take(), take()

local function stored(id)
  local hold = load(id)
  return hold and {id, call('HGETALL', hold.key), hold.on} or false
end

local function all(ids)
  local found = {}
  for _, id in ipairs(ids) do
    found[#found + 1] = stored(id) or nil
  end
  return found
end

if what == 'now' then
  return {stamp, frozen or ''}
elseif what == 'swept' then
  -- The server expires records by itself; those are swept later.
  local swept = call('GET', P .. 'swept') or ''
  for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'ended', '-inf', '(' .. int(now - retention))) do
    swept = seldom().swept_with(swept, id)
  end
  return {swept}
elseif what == 'ended' then
  local ids = call('ZRANGEBYSCORE', P .. 'ended', low, '+inf', 'WITHSCORES', 'LIMIT', 0, size)
  local names = {}
  for i = 1, #ids, 2 do
    names[#names + 1] = ids[i]
  end
  return {ids, all(names)}
elseif what ~= 'accounts' then
  local ids = call('ZRANGEBYLEX', P .. what, low, '+', 'LIMIT', 0, size)
  return {#ids, ids[#ids] or '', all(ids)}
end

local since = take()
local changed = all(call('ZRANGEBYSCORE', P .. 'ended', since, '+inf'))
local names, page, seen = call('ZRANGEBYLEX', P .. 'accounts', low, '+', 'LIMIT', 0, size), {}, {}
for _, name in ipairs(names) do
  local acc = account(name)
  if acc and acc.parts and not seldom().has_parts(acc) then
    failure = failure or {'damaged', name}
  end
  if acc then
    local open = call('ZRANGE', P .. 'o:' .. name, 0, -1, 'WITHSCORES')
    for i = 1, #open, 2 do
      if not seen[open[i]] then
        seen[open[i]] = true
        changed[#changed + 1] = stored(open[i]) or nil
      end
    end
    page[#page + 1] = {name, call('HGETALL', acc.key), call('HGETALL', P .. 'm:' .. name), open}
  end
end
if failure then
  return failure
end
return {stamp, #names, names[#names] or '', changed, page}
