-- A router says how many calls wait with it. ARGV: router, calls, for how long that counts, and how many it has refused since.
-- The key lives no longer than its last word.
local router, held, lease, refused = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
if refused > 0 then
  begin_to_count()
  call('HINCRBY', at('traffic'), 'refused', int(refused))
end
local key = P .. 'held'
local words, others, told, first, first_till = call('HGETALL', key), 0, false, nil, nil
for i = 1, #words, 2 do
  local till = tonumber(string.match(words[i + 1], ' (%d+)$'))
  if till <= now then
    call('HDEL', key, words[i])
  elseif words[i] == router then
    told = true
  else
    others = others + 1
    if not first or till < first_till or till == first_till and words[i] < first then first, first_till = words[i], till end
  end
end
if held > 0 then
  if others >= MAX_HOLDERS then call('HDEL', key, first) end
  call('HSET', key, router, int(held) .. ' ' .. int(now + lease))
  call('PEXPIRE', key, int(lease))
else
  call('HDEL', key, router)
end
if told ~= (held > 0) then wake('wake:directory') end
return 1
