-- Asks something of a session. ARGV: session, the context of the one that is meant or '', 'End' or 'CloseTrack', reason or track.
local id, meant, kind, value = unpack(ARGV, 1, 4)
sweep()
local function is_meant(other) return meant == '' or meant == other end
local ticket = call('HGET', P .. 'ids', id)
local record = ticket and session(ticket)
if not record or not is_meant(record.context) then
  local last = call('HGET', P .. 'last', id)
  local text = last and call('HGET', P .. 'over', last)
  local over = text and cjson.decode(text)
  return over and is_meant(over.context) and { 'over', over.reason } or { 'unknown' }
end
want(ticket, record, kind, value)
local taker = kind == 'End' and call('HGET', P .. 'moving', id)
local taking = taker and session(taker)
if taking then want(taker, taking, kind, value) end
return { 'pending', ticket, record.worker, http(record.worker) }
