-- The context of an id that a token is good for. ARGV: session, hash of the token.
expire_contexts()
local ids = contexts_of(ARGV[1])
for i = #ids, 1, -1 do
  local kept = context(ids[i])
  if kept and takes(kept, ARGV[2]) then return ids[i] end
end
for _, empty in ipairs(empties(ARGV[1])) do
  if takes(empty, ARGV[2]) then return empty.id end
end
return ''
