-- ledger.settle: book what a call cost, once per hold id.

if frozen then
  return {'frozen', frozen}
end
local id, cost, state, outcome, usage, request = take(), take(), take(), take(), take(), take()
local counted = take()
local thresholds, observed = {}, {}
for i = 1, tonumber(take()) do
  thresholds[i] = take()
end
for i = 1, tonumber(take()) do
  observed[i] = {take(), take()}
end
local fade, most = tonumber(take()), tonumber(take())

local hold = load(id)
if hold and (hold.state == 'settled' or hold.state == 'voided') then
  return 'repeated'
end
local order, first, last = {}, 1, 0
if hold then
  for i = 1, #hold.on, 3 do
    local acc = account(hold.on[i])
    if acc then
      acc.place, acc.held_in, acc.expired_in = i, hold.on[i + 1], hold.on[i + 2]
      order[#order + 1] = acc
    end
  end
elseif call('ZSCORE', P .. 'ended', id) or id <= (call('GET', P .. 'swept') or '') then
  -- Its record is gone, and its cost may have been booked.
  return failure or 'repeated'
elseif take() == 'known' then
  return failure or 'whole'
else
  hold = {id = id, key = P .. 'h:' .. id, state = 'held', on = {}, amount = take(), on_expiry = take()}
  hold.expires = int(now + tonumber(take()))
  hold.model = take()
  first = at + 2
  at = first + tonumber(take()) - 1
  last = at
  hold.units = units_given(first, last)
  local unknown
  order, unknown = charged()
  if failure then
    return failure
  elseif unknown then
    return {'unknown', unknown}
  end
  hold.lost = true
end
local answer = unready(order, id)
if answer then
  return answer
end

local function crossed(acc)
  local found = {}
  if #thresholds == 0 or (limit_of(acc) or 0) == 0 then
    return found
  end
  local limits, spent, known = limits_of(acc), int(acc.spent), nil
  for _, percent in ipairs(thresholds) do
    if has_spent(spent, percent, limits) then
      known = known or call('HGET', acc.key, 'crossed')
      if not string.find(known, ',' .. percent .. ',', 1, true) then
        known = (known == '' and ',' or known) .. percent .. ','
        found[#found + 1] = percent
      end
    end
  end
  if #found > 0 then
    call('HSET', acc.key, 'crossed', known)
  end
  return found
end

local costs = {}
for unit, count in string.gmatch(counted, '([^ ,]+) (%d+)') do
  costs[unit] = count
end
if state == 'voided' then
  setmetatable(costs, {__index = function() return '0' end})
end
hold.cost = cost
end_units(hold, costs)

local late = hold.state == 'expired'
local crossings = {}
for _, acc in ipairs(order) do
  if acc.fresh then
    create(acc)
  end
  if hold.lost then
    acc.held_in, acc.place = acc.window, #hold.on + 1
    hold.on[#hold.on + 1] = acc.name
    hold.on[#hold.on + 1] = acc.window
    hold.on[#hold.on + 1] = ''
  end
  release(acc, hold, acc.held_in)
  if acc.window == acc.held_in then
    local _, on_expiry, booked = amounts_of(hold, acc)
    if late and is_live(acc, acc.expired_in) then
      book(acc, acc.expired_in, hold.model, minus(on_expiry), -1)
    end
    if booked ~= '0' then
      begin_part(acc)
      book(acc, acc.epoch, hold.model, booked, 0)
    end
    hold.on[acc.place + 2] = acc.epoch
    local reached = crossed(acc)
    if #reached > 0 then
      crossings[#crossings + 1] = {describe(acc), reached}
    end
  end
  acc.updated = stamp
  call('HSET', acc.key, 'updated', stamp)
  keep(acc)
end
if hold.lost then
  call('HSET', hold.key, 'amount', hold.amount, 'on_expiry', hold.on_expiry, 'expires', hold.expires,
    unpack(ARGV, first, last))
  call('ZADD', P .. 'holds', 0, id)
end
if request ~= '' then
  call('HSET', hold.key, 'request_id', request)
end
call('HSET', hold.key, 'state', state, 'cost', cost, 'ended', stamp, 'outcome', outcome, 'usage', usage,
  'on', cmsgpack.pack(hold.on))
save_units(hold)
gone(hold, stamp)
local function learn(model, bucket)
  local key = P .. 'b:' .. model
  call('HINCRBY', key, bucket, 1)
  local count = call('HINCRBY', key, 'sum', 1)
  if count == 1 then
    call('SADD', P .. 'models', model)
  end
  if count >= fade then
    local counts, sum = call('HGETALL', key), 0
    call('DEL', key)
    for i = 1, #counts, 2 do
      local half = math.floor(counts[i + 1] / 2)
      if counts[i] ~= 'sum' and half > 0 then
        call('HSET', key, counts[i], half)
        sum = sum + half
      end
    end
    call('HSET', key, 'sum', sum)
  end
end
for _, seen in ipairs(observed) do
  -- A model beyond the limit is not counted.
  if call('SCARD', P .. 'models') < most or call('SISMEMBER', P .. 'models', seen[1]) == 1 then
    learn(seen[1], seen[2])
  end
end
sweep()
if #crossings == 0 and #expiries == 0 then
  return late and 'late' or 'settled'
end
return {late and 'late' or 'settled', crossings, expiries}
