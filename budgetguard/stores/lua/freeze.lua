-- Close the project for writing, with a note of why; an empty note opens it again.

local note = take()
if note == '' then
  call('DEL', P .. 'frozen')
else
  call('SET', P .. 'frozen', note)
end
return 'done'
