-- Uses up the token of the session that lives under an id. ARGV: session, hash of the token, hash of the next.
-- Returns the generation of the next, or an empty text.
expire_contexts()
local ids = contexts_of(ARGV[1])
for i = #ids, 1, -1 do
  local kept = context(ids[i])
  if kept and kept.holders > 0 then
    if not takes(kept, ARGV[2]) then return '' end
    replace_token(kept, ARGV[2], ARGV[3])
    put_context(ids[i], kept)
    return int(kept.generation)
  end
end
return ''
