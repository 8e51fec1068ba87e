-- Whether a demand is done. ARGV: ticket, track ('' for the session's end).
sweep()
local ticket, track = ARGV[1], ARGV[2]
if session(ticket) then
  local result = track ~= '' and call('HGET', P .. 'acks', ticket .. ' ' .. track)
  return result and { 'track', result } or { 'pending' }
end
local over = call('HGET', P .. 'over', ticket)
return { 'ended', over and cjson.decode(over).reason or 'worker_lost' }
