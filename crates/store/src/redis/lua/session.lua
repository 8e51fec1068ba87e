-- What is known of an id. ARGV: session.
sweep()
local ticket = call('HGET', P .. 'ids', ARGV[1])
local live = ticket and view(ticket)
if live then return { 'live', live } end
local over = last_end(ARGV[1])
return over and { 'over', over.reason } or { 'unknown' }
