-- Goes after every script, which is a function by now: nothing that was written stays for ever.
local reply = step()
for name in pairs(written) do call('PEXPIRE', P .. name, LINGER) end
return reply
