-- What is known of an id. ARGV: session.
sweep()
local ticket = call('HGET', P .. 'ids', ARGV[1])
local live = ticket and view(ticket)
if live then return { 'live', live } end
local last = call('HGET', P .. 'last', ARGV[1])
local over = last and call('HGET', P .. 'over', last)
return over and { 'over', cjson.decode(over).reason } or { 'unknown' }
