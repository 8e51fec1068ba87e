-- Asks something of a session. ARGV: session, 'End' or 'CloseTrack', reason or track.
local id, kind, value = ARGV[1], ARGV[2], ARGV[3]
sweep()
local ticket = call('HGET', P .. 'ids', id)
local record = ticket and session(ticket)
if not record then
  local last = call('HGET', P .. 'last', id)
  local over = last and call('HGET', P .. 'over', last)
  return over and { 'over', cjson.decode(over).reason } or { 'unknown' }
end
want(ticket, record, kind, value)
local taker = kind == 'End' and call('HGET', P .. 'moving', id)
local taking = taker and session(taker)
if taking then want(taker, taking, kind, value) end
return { 'pending', ticket, record.worker, http(record.worker) }
