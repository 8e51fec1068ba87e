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
end
if phase == 'active' then record.moves, record.token = nil, nil end
local id = record.id
local arrives = phase == 'active' and call('HGET', P .. 'moving', id) == ticket
local holder = (arrives or not record.came) and call('HGET', P .. 'ids', id)
local moved = arrives and holder and session(holder)
if moved then record.came = record.came or moved.came end
if arrives or holder == ticket then comes(record) end
record.phase = phase
put(ticket, record)
call('HSET', at('details'), ticket, ARGV[5])
call('ZREM', P .. 'reserved', ticket)
if arrives then
  vacate(id, moved)
  if moved then want(holder, moved, 'End', 'moved') end
end
wake('wake:session:' .. id)
return 1
