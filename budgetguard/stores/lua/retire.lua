-- Let the project leave: with nowhere to go, it stays.

local whereto = take()
if whereto == '' then
  call('DEL', P .. 'moved')
else
  call('SET', P .. 'moved', whereto)
end
return 'done'
