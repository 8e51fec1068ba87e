-- A client has arrived with what it was given. ARGV: context, hash of its token. Returns whether that is good.
local kept = context(ARGV[1])
if not kept then return 0 end
if kept.offered == ARGV[2] then
  kept.token = ARGV[2]
  kept.offered, kept.previous, kept['until'] = nil, nil, nil
  put_context(ARGV[1], kept)
end
return kept.token == ARGV[2] and 1 or 0
