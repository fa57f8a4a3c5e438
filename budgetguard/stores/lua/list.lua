-- A page of accounts in order of their names, as stored, and whether time has changed each since.

local low, high, size = take(), take(), take()
local names = call('ZRANGEBYLEX', P .. 'accounts', low, high, 'LIMIT', 0, size)
local page, failed = {}, {}
for _, name in ipairs(names) do
  local acc = account(name)
  if failure then
    failed[#failed + 1], failure = failure, false
  elseif acc then
    local due = not frozen and (is_over(acc) or has_ended_grants(acc)
      or call('ZCOUNT', P .. 'o:' .. name, '-inf', stamp) > 0)
    page[#page + 1] = {due and 1 or 0, describe(acc)}
  end
end
return {#names, names[#names] or '', page, failed}
