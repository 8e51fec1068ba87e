-- Opens a context. ARGV: session, hash of the token shown, verified user, new context, hash of the new token.
local id, resumed, kept = open_context(unpack(ARGV, 1, 5))
if not id then return redis.error_reply('FULL no room') end
-- Opened without a claim: should its holder die, nobody ends it. It is forgotten a day after it was last written to.
call('ZADD', at('contexts-at'), int(now + LINGER), id)
return { id, resumed and '1' or '0', int(kept.generation), int(kept.version), document(id) }
