-- A worker begins: its name gets a new epoch, and what an earlier process of that name held is over.
-- ARGV: worker, lease, and for how long others may have sessions that are not known here, or 0. Returns the epoch.
--
-- The counter is never behind the clock, so that after the store was lost nobody gets an epoch that somebody had before.
local name, lease = ARGV[1], tonumber(ARGV[2])
local before = tonumber(call('GET', P .. 'epoch') or 0)
local epoch = int(math.max(before + 1, now))
call('SET', P .. 'epoch', epoch, 'PX', LINGER)
begin_to_count()
local settling = tonumber(ARGV[3])
-- From the first of them on: each that comes later must not begin it anew.
if settling > 0 then call('SET', P .. 'settles', int(now + settling), 'PX', int(settling), 'NX') end
discard(name, 'worker_lost')
call('HSET', at('worker:' .. name), 'epoch', epoch, 'renewed', int(now))
call('ZADD', at('leases'), int(now + lease), name)
return epoch
