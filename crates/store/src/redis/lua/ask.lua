-- Asks something of a session. ARGV: session, the context of the one that is meant or '', 'End' or 'CloseTrack', reason or track, and with
-- an end what the client is told, or ''.
local id, meant, kind, value = unpack(ARGV, 1, 4)
local message = ARGV[5] ~= '' and ARGV[5] or nil
sweep()
local function is_meant(other) return meant == '' or meant == other end
local ticket = call('HGET', P .. 'ids', id)
local record = ticket and session(ticket)
if not record or not is_meant(record.context) then
  local over = last_end(id)
  return over and is_meant(over.context) and { 'over', over.reason } or { 'unknown' }
end
want(ticket, record, kind, value, message)
local taker = kind == 'End' and call('HGET', P .. 'moving', id)
local taking = taker and session(taker)
if taking then want(taker, taking, kind, value, message) end
return { 'pending', ticket, record.worker, http(record.worker) }
