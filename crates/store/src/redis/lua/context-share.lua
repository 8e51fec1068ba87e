-- Opens the context of the session that lives under an id once more. ARGV: session, hash of the token shown, verified user, hash
-- of the token given. What was shown stays good beside what is given.
expire_contexts()
local ids = contexts_of(ARGV[1])
for i = #ids, 1, -1 do
  local kept = context(ids[i])
  if kept and kept.holders > 0 then
    if not by_token(kept, ARGV[2], ARGV[3]) then return { 'refused' } end
    share_context(ids[i], kept, ARGV[2], ARGV[4])
    return { 'opened', ids[i], int(kept.generation), int(kept.version), document(ids[i]) }
  end
end
return { 'nobody' }
