-- A worker begins: its name gets a new epoch, and what an earlier process of that name held is over.
-- ARGV: worker, lease. Returns the epoch.
--
-- The counter is never behind the clock, so that after the store was lost nobody gets an epoch that somebody had before.
local name, lease = ARGV[1], tonumber(ARGV[2])
local before = tonumber(call('GET', P .. 'epoch') or 0)
local epoch = int(math.max(before + 1, now))
call('SET', P .. 'epoch', epoch, 'PX', LINGER)
begin_to_count()
discard(name, 'worker_lost')
call('HSET', at('worker:' .. name), 'epoch', epoch, 'renewed', int(now))
call('ZADD', at('leases'), int(now + lease), name)
return epoch
