-- A worker lives. ARGV: worker, epoch, lease, capacity, gate, http, what it says (JSON).
-- Returns the gate that others want and the number of that order, then ticket, session and wants (JSON) of each session that something is asked of.
local name = ARGV[1]
local refused = fenced(name, ARGV[2])
if refused then return refused end
local before = call('HGET', worker(name), 'gate')
call('HSET', worker(name), 'renewed', int(now), 'capacity', ARGV[4], 'gate', ARGV[5], 'http', ARGV[6], 'said', ARGV[7])
call('ZADD', at('leases'), int(now + tonumber(ARGV[3])), name)
for _, key in ipairs({ 'worker:', 'on:', 'wants:' }) do call('PEXPIRE', P .. key .. name, LINGER) end
touch()
if before ~= ARGV[5] then wake('wake:directory') end
sweep()
expire_contexts()
local reply = { 'open', '0' }
local wants = call('HGETALL', P .. 'wants:' .. name)
for i = 1, #wants, 2 do
  if wants[i] == 'gate' then
    reply[1] = wants[i + 1]
  elseif wants[i] == 'order' then
    reply[2] = wants[i + 1]
  else
    local record = session(wants[i])
    if record then
      for _, text in ipairs({ wants[i], record.id, wants[i + 1] }) do reply[#reply + 1] = text end
    end
  end
end
return reply
