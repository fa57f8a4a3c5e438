-- Note where the project has moved to; an empty text takes the note back.

local whereto = take()
if whereto == '' then
  call('DEL', P .. 'moved')
else
  call('SET', P .. 'moved', whereto)
end
return 'done'
