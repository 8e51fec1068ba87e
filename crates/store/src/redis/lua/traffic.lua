-- How many clients have come and gone. Returns arrived, departed, refused and calls that wait.
sweep()
local counted = call('HMGET', P .. 'traffic', 'arrived', 'departed', 'refused')
local words, waiting = call('HGETALL', P .. 'held'), 0
for i = 2, #words, 2 do
  local held, till = string.match(words[i], '^(%d+) (%d+)$')
  if tonumber(till) > now then waiting = waiting + tonumber(held) end
end
return { counted[1] or '0', counted[2] or '0', counted[3] or '0', int(math.min(waiting, 4294967295)) }
