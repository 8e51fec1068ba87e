-- The owner says that a session is over. ARGV: worker, epoch, ticket, reason.
local refused = fenced(ARGV[1], ARGV[2])
if refused then return refused end
local record = session(ARGV[3])
if record and record.worker == ARGV[1] then finish(ARGV[3], ARGV[4]) end
return 1
