-- Live sessions by id. ARGV: user, after, limit. Returns where the next page begins, then the sessions.
sweep()
local user, after, limit = ARGV[1], ARGV[2], tonumber(ARGV[3])
local ids
if user == '' then
  ids = call('ZRANGEBYLEX', P .. 'by-id', after == '' and '-' or '(' .. after, '+', 'LIMIT', 0, limit + 1)
else
  local from = (after == '' and '[' or '(') .. user .. '\0' .. after
  ids = call('ZRANGEBYLEX', P .. 'users', from, '(' .. user .. '\1', 'LIMIT', 0, limit + 1)
  for i, member in ipairs(ids) do ids[i] = string.sub(member, #user + 2) end
end
local reply = { #ids > limit and ids[limit] or '' }
for i = 1, math.min(#ids, limit) do
  local ticket = call('HGET', P .. 'ids', ids[i])
  local live = ticket and view(ticket)
  if live then reply[#reply + 1] = live end
end
return reply
