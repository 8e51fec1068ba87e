-- The owner says where a session is. ARGV: worker, epoch, ticket, phase, detail. Returns whether it still has it.
local name, ticket, phase = ARGV[1], ARGV[3], ARGV[4]
local refused = fenced(name, ARGV[2])
if refused then return refused end
local record = session(ticket)
if not record or record.worker ~= name then return 0 end
if phase == 'active' and record.moves then
  local kept = context(record.context)
  if not kept or not confirm_token(kept, record.token, record.moves) then
    -- It has connected by a token that its client has not waited for: it takes nobody's place, and ends.
    if call('HGET', P .. 'moving', record.id) == ticket then call('HDEL', P .. 'moving', record.id) end
    want(ticket, record, 'End', 'superseded')
    return 0
  end
  put_context(record.context, kept)
  record.moves, record.token = nil, nil
end
record.phase = phase
put(ticket, record)
call('HSET', at('details'), ticket, ARGV[5])
call('ZREM', P .. 'reserved', ticket)
if phase == 'active' and call('HGET', P .. 'moving', record.id) == ticket then
  local before = call('HGET', P .. 'ids', record.id)
  local moved = before and session(before)
  vacate(record.id, moved)
  if moved then want(before, moved, 'End', 'moved') end
end
wake('wake:session:' .. record.id)
return 1
