-- A worker goes. ARGV: worker, epoch.
local refused = fenced(ARGV[1], ARGV[2])
if refused then return refused end
discard(ARGV[1], 'shutdown')
return 1
