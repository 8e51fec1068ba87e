-- Adds outputs. ARGV: worker, epoch, ticket, mark, earlier (JSON), number of the first, number of the oldest that the writer has, texts.
-- Returns 'upto' and a number, 'missing' and a number, or 'over'.
local name, ticket, mark, first, oldest = ARGV[1], ARGV[3], ARGV[4], tonumber(ARGV[6]), tonumber(ARGV[7])
local refused = fenced(name, ARGV[2])
if refused then return refused end
local record = session(ticket)
if not record or record.worker ~= name then return { 'over' } end
local texts, meta = at('outputs:' .. record.context), at('outputs-at:' .. record.context)
local known = call('HMGET', meta, 'mark', 'earlier', 'last', 'bytes')
if known[1] and known[1] ~= mark then
  -- The client has gone on to another session, which writes.
  for _, before in ipairs(cjson.decode(known[2])) do if before[1] == mark then return { 'over' } end end
end
local last, bytes = tonumber(known[3] or 0), tonumber(known[4] or 0)
local function cut()
  bytes = bytes - #call('LPOP', texts)
end
if first > last + 1 then
  if first > oldest then return { 'missing', int(last) } end
  call('DEL', texts)
  last, bytes = first - 1, 0
elseif known[1] and known[1] ~= mark then
  -- What the session before has said after this one had begun.
  while last >= first do
    local text = call('RPOP', texts)
    bytes, last = bytes - (text and #text or 0), last - 1
  end
end
for i = 8 + last + 1 - first, #ARGV do
  call('RPUSH', texts, ARGV[i])
  bytes, last = bytes + #ARGV[i], last + 1
end
local count = call('LLEN', texts)
while count > MAX_OUTPUTS or bytes > MAX_OUTPUTS_BYTES and count > 1 do
  cut()
  count = count - 1
end
call('HSET', meta, 'mark', mark, 'earlier', ARGV[5], 'last', int(last), 'bytes', int(bytes))
local user = owner_of_outputs(ticket, record)
if user then call('HSET', meta, 'user', user) end
wake('wake:session:' .. record.id)
return { 'upto', int(last) }
