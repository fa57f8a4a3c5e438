-- The beginning of every script: arguments, the clock, numbers, and rows as they are stored.
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
--   scopes, scopes.rules                the revision of the project's scopes, and their text
--   trail, entries                      ids of the audit trail's entries in order, and the text of each
-- Fields that most accounts and holds do not have are missing there, and so are those that an older version
-- did not know: `grants` (JSON of id, amount and end in turn), `parts` (see booking.lua), `rollover`,
-- `rules`, `labels`, `revision`; of holds `units` ("NAME HELD ON_EXPIRY COST", commas between), `labels`,
-- `shadowed`.
-- Money is only ever added by HINCRBY, which is exact. A Lua number is a double, exact to 2^53, and
-- redis.call() may write it with an exponent, so numbers are written through int(). Sums stop at MOST and
-- stay there (money.add_bounded), to within the hundred Nanos that a double resolves there.
--
-- A server may lose keys: it evicts, is flushed, or comes back empty. The verb then fails and changes
-- nothing: with {'lost', name} where an account is missing that is listed, or that the client has seen and
-- nobody deleted (or the scopes, which have no name); with {'damaged', name} where an account has no number
-- where one must be.

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
  hint.start, hint.finish, hint.skipped = take(), take(), take()
  hints[hint.name] = hint
end

local closed = call('MGET', P .. 'frozen', P .. 'scopes')
local frozen, scopes = closed[1], closed[2]
-- The first failure found. Nothing may have been changed before it is returned.
local failure = false

local function is_whole(text)
  return #text <= 20 and string.find(text, '^-?%d+$') ~= nil
end

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

local cache, holds = {}, {}
local needs, expiries = {}, {}
local left = BATCH

local function unit_of(name)
  return string.match(name, '^labels:@unit=([^&]*)') or 'usd'
end

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

local function is_over(acc)
  return acc.finish ~= '' and now >= tonumber(acc.finish)
end

local function account(name)
  local found = cache[name]
  if found == nil then
    local key = P .. 'a:' .. name
    local row = call(
      'HMGET', key, 'limit', 'spent', 'held', 'end', 'window', 'epoch', 'updated', 'ephemeral', 'grants',
      'parts', 'revision')
    -- The server expires an idle account by itself; `accounts` and `idle` list it until they are swept.
    if not row[5] and call('ZSCORE', P .. 'accounts', name) and not call('ZSCORE', P .. 'idle', name) then
      failure = failure or {'lost', name}
    end
    local sound = row[5]
    for i = 1, sound and 7 or 0 do
      local may_be_empty = i == 1 or i == 4
      if not row[i] or not (is_whole(row[i]) or (may_be_empty and row[i] == '')) then
        sound = false
      end
    end
    found = sound and {
      name = name, key = key, limit = row[1], spent = tonumber(row[2]), held = tonumber(row[3]),
      finish = row[4], window = row[5], epoch = row[6], updated = row[7], ephemeral = row[8] == '1',
      unit = unit_of(name), revision = row[11] or '0',
    }
    if sound and row[9] and row[9] ~= '' then
      found.grants = grants_of(row[9])
      sound = found.grants
    end
    if sound and row[10] and row[10] ~= '' then
      found.parts = row[10]
      -- Only when some fall out is the rest added up.
      sound = string.find(found.parts, '^%d*,[%d:,]*$') and (not is_over(found) or has_parts(found))
    end
    if row[5] and not sound then
      failure = failure or {'damaged', name}
      found = false
    end
    cache[name] = found
  end
  return found
end

local function load(id)
  local found = holds[id]
  if found == nil then
    local row = call(
      'HMGET', P .. 'h:' .. id, 'state', 'on', 'amount', 'on_expiry', 'model', 'expires', 'user', 'units')
    found = row[1] and {
      id = id, key = P .. 'h:' .. id, state = row[1], on = cmsgpack.unpack(row[2]), amount = row[3],
      on_expiry = row[4], model = row[5], expires = row[6], user = row[7], units = row[8],
    }
    holds[id] = found
  end
  return found
end

-- Words from first to last are names and values of a new hold's fields: return its units, if it has any.
local function units_given(first, last)
  for i = first, last, 2 do
    if ARGV[i] == 'units' then
      return ARGV[i + 1]
    end
  end
  return false
end

local function counts_of(hold, acc)
  for unit, held, on_expiry, cost in string.gmatch(hold.units or '', '([^ ,]+) (%d+) (%d+) (%d+)') do
    if unit == acc.unit then
      return held, on_expiry, cost
    end
  end
  return '0', '0', '0'
end

-- What a hold sets aside on an account, what is booked there if it expires, and what was booked there.
local function amounts_of(hold, acc)
  if acc.unit == 'usd' then
    return hold.amount, hold.on_expiry, hold.cost
  end
  return counts_of(hold, acc)
end

-- Note what was booked of each unit: costs[unit], or what is booked on expiry.
local function end_units(hold, costs)
  hold.units = hold.units and string.gsub(
    hold.units, '([^ ,]+) (%d+) (%d+) %d+', function(unit, held, on_expiry)
      return unit .. ' ' .. held .. ' ' .. on_expiry .. ' ' .. (costs[unit] or on_expiry)
    end)
end

local function save_units(hold)
  if hold.units then
    call('HSET', hold.key, 'units', hold.units)
  end
end
