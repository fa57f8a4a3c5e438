-- A page of holds in order of their ids, as stored, and whether each has expired since.

local index, low, high, size = take(), take(), take(), take()
local ids = call('ZRANGEBYLEX', P .. index, low, high, 'LIMIT', 0, size)
local page = {}
for _, id in ipairs(ids) do
  local hold = load(id)
  if hold then
    local due = not frozen and hold.state == 'held' and tonumber(hold.expires) <= now
    page[#page + 1] = {due and 1 or 0, id, call('HGETALL', hold.key), hold.on}
  end
end
return {#ids, ids[#ids] or '', page}
