-- Adds an output. ARGV: worker, epoch, ticket, text. Returns its number, or 0 when the session is over.
local name, ticket, text = ARGV[1], ARGV[3], ARGV[4]
local refused = fenced(name, ARGV[2])
if refused then return refused end
local record = session(ticket)
if not record or record.worker ~= name then return 0 end
local texts, numbers = at('outputs:' .. ticket), at('outputs-at:' .. ticket)
local number = call('HINCRBY', numbers, 'last', 1)
local bytes = call('HINCRBY', numbers, 'bytes', #text)
local count = call('RPUSH', texts, text)
while count > MAX_OUTPUTS or bytes > MAX_OUTPUTS_BYTES and count > 1 do
  bytes = call('HINCRBY', numbers, 'bytes', -#call('LPOP', texts))
  count = count - 1
end
wake('wake:session:' .. record.id)
return number
