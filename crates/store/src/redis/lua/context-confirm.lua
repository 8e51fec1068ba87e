-- A client has arrived with what it was given. ARGV: context, hash of its token, how far that is. Returns whether it is good.
local kept = context(ARGV[1])
if not kept or not confirm_token(kept, ARGV[2], ARGV[3]) then return 0 end
put_context(ARGV[1], kept)
return 1
