-- Gives back a claim that no worker has confirmed. ARGV: ticket.
local record = session(ARGV[1])
if record and record.phase == 'reserved' then finish(ARGV[1], 'connect_timeout') end
return 1
