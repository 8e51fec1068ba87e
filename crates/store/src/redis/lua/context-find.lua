-- The context of the session that lives under an id, else of the last that did. ARGV: session.
expire_contexts()
local ids = contexts_of(ARGV[1])
for i = #ids, 1, -1 do
  local kept = context(ids[i])
  if kept and kept.holders > 0 then return ids[i] end
end
return ids[#ids] or ''
