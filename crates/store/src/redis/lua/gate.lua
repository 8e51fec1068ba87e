-- Asks a worker to drain or to serve. ARGV: worker, gate. Returns whether there is such a worker.
local name, gate = ARGV[1], ARGV[2]
if call('EXISTS', worker(name)) == 0 then return 0 end
local key = at('wants:' .. name)
if (call('HGET', key, 'gate') or 'open') ~= gate then
  call('HSET', key, 'gate', gate)
  wake('wake:worker:' .. name)
  wake('wake:directory')
end
return 1
