-- For which services calls wait: each service and how many, of every router. Words that count no longer are forgotten.
local key = P .. 'words'
local words, reply = call('HGETALL', key), {}
for i = 1, #words, 2 do
  local held, till = string.match(words[i + 1], '^(%d+) (%d+)$')
  if tonumber(till) > now then
    reply[#reply + 1] = string.match(words[i], '^[^ ]+')
    reply[#reply + 1] = held
  else
    call('HDEL', key, words[i])
  end
end
return reply
