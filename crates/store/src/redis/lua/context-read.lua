-- What a context holds. ARGV: context. Returns version and document, or nothing.
expire_contexts()
local kept = context(ARGV[1])
return kept and { int(kept.version), document(ARGV[1]) } or {}
