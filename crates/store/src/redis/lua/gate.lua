-- Asks a worker to drain or to serve. ARGV: worker, gate. Returns whether there is such a worker.
--
-- Each order that differs from the one before has a number of its own, by which the worker says what it has heard.
local name, gate = ARGV[1], ARGV[2]
if call('EXISTS', worker(name)) == 0 then return 0 end
local key = at('wants:' .. name)
local before = call('HMGET', key, 'gate', 'order')
if (before[1] or 'open') ~= gate then
  call('HSET', key, 'gate', gate, 'order', int(math.max(tonumber(before[2] or 0) + 1, now)))
  wake('wake:worker:' .. name)
  wake('wake:directory')
end
return 1
