-- A call has a session. ARGV: call, session. Returns 1, or 0 if the call has been entered before.
local names, times = at('calls'), at('calls-at')
local function forget(name)
  call('HDEL', names, name)
  call('ZREM', times, name)
end
for _, name in ipairs(call('ZRANGEBYSCORE', times, '-inf', int(now - LINGER), 'LIMIT', 0, EXPIRED_AT_ONCE)) do forget(name) end
if call('HGET', names, ARGV[1]) then return 0 end
if call('HLEN', names) >= MAX_CALLS then forget(call('ZRANGE', times, 0, 0)[1]) end
call('HSET', names, ARGV[1], ARGV[2])
call('ZADD', times, int(now), ARGV[1])
return 1
