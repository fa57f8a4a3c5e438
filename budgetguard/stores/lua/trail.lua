-- A page of the audit trail in order of its entries' ids, and the text of each.

local low, high, size = take(), take(), take()
local ids = call('ZRANGEBYLEX', P .. 'trail', low, high, 'LIMIT', 0, size)
local page = {}
for i, id in ipairs(ids) do
  page[i] = {id, call('HGET', P .. 'entries', id)}
end
return {#ids, ids[#ids] or '', page}
