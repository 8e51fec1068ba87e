-- The workers whose leases hold: name, epoch, asked gate, that order's number, sessions, age and what it said of each.
local reply = {}
for _, name in ipairs(call('ZRANGEBYSCORE', P .. 'leases', '(' .. int(now), '+inf')) do
  local known = call('HMGET', worker(name), 'epoch', 'renewed', 'said')
  if known[1] then
    local wants = call('HMGET', P .. 'wants:' .. name, 'gate', 'order')
    reply[#reply + 1] = { name, known[1], wants[1] or 'open', wants[2] or '0', int(call('HLEN', P .. 'on:' .. name)),
      int(math.max(0, now - tonumber(known[2]))), known[3] or '' }
  end
end
return reply
