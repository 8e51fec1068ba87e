-- Outputs after one that was seen. ARGV: 'session' or 'context', its name, the mark and the number of what was seen ('-' and 0 for nothing).
-- Returns '' if nothing is known of it, else '1' if the session is over, the context, its verified user, the mark, the
-- earlier ones (JSON), the last number, the number of the first output, and the outputs.
sweep()
local context_id, ticket, live = ARGV[2], nil, nil
if ARGV[1] == 'session' then
  ticket = call('HGET', P .. 'ids', ARGV[2]) or call('HGET', P .. 'last', ARGV[2])
  local record = ticket and session(ticket)
  live = record
  local text = ticket and not record and call('HGET', P .. 'over', ticket)
  record = record or text and cjson.decode(text)
  if not record then return { '' } end
  context_id = record.context
end
local texts = P .. 'outputs:' .. context_id
local known = call('HMGET', P .. 'outputs-at:' .. context_id, 'mark', 'earlier', 'last', 'user')
if not known[1] and ARGV[1] == 'context' then return { '' } end
local mark, last, seen = known[1] or '', tonumber(known[3] or 0), 0
if ARGV[3] == mark then
  seen = tonumber(ARGV[4])
elseif known[2] then
  for _, before in ipairs(cjson.decode(known[2])) do
    if before[1] == ARGV[3] then seen = math.min(before[2], tonumber(ARGV[4])) end
  end
end
local user = known[4] or live and owner_of_outputs(ticket, live) or ''
local first = last - call('LLEN', texts) + 1
local from = math.max(first, seen + 1)
local read = from <= last and call('LRANGE', texts, int(from - first), int(from - first + MAX_READ - 1)) or {}
local over = ticket and not session(ticket) and from + #read > last
return { over and '1' or '0', context_id, user, mark, known[2] or '[]', int(last), int(from), unpack(read) }
