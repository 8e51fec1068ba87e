-- Whether all sessions that live are known: for how long that is unsure, in milliseconds, or -1 where there is no worker.
sweep()
if #call('ZRANGE', P .. 'leases', 0, 0) == 0 then return '-1' end
return int(settles())
