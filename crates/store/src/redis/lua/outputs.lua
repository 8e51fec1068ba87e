-- Outputs after a number. ARGV: session, number. Returns '' for an unknown id, else '1' if the session is over, the number of the
-- first output, and the outputs.
sweep()
local ticket = call('HGET', P .. 'ids', ARGV[1]) or call('HGET', P .. 'last', ARGV[1])
if not ticket then return { '' } end
local texts = P .. 'outputs:' .. ticket
local last = tonumber(call('HGET', P .. 'outputs-at:' .. ticket, 'last') or 0)
local first = last - call('LLEN', texts) + 1
local from = math.max(first, tonumber(ARGV[2]) + 1)
local read = from <= last and call('LRANGE', texts, int(from - first), int(from - first + MAX_READ - 1)) or {}
local over = not session(ticket) and from + #read > last
return { over and '1' or '0', int(from), unpack(read) }
