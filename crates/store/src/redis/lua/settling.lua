-- For how long it is unsure whether all sessions that live are known. ARGV: how long that is where there is no worker. In milliseconds.
sweep()
if #call('ZRANGE', P .. 'leases', 0, 0) == 0 then return int(tonumber(ARGV[1])) end
return int(settles())
