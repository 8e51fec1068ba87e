-- Replaces what a context holds. ARGV: context, expected version or '', document.
expire_contexts()
local id, data = ARGV[1], ARGV[3]
local kept = context(id)
if not kept then return { 'gone' } end
if ARGV[2] ~= '' and ARGV[2] ~= int(kept.version) then return { 'conflict', int(kept.version) } end
local total = tonumber(call('GET', P .. 'contexts-bytes') or 0)
while total - kept.bytes + #data > MAX_BYTES do
  -- What is written to is not what is forgotten for it.
  if not forget_oldest(id) then return redis.error_reply('FULL no room') end
  total = tonumber(call('GET', P .. 'contexts-bytes') or 0)
end
call('INCRBY', at('contexts-bytes'), int(#data - kept.bytes))
kept.bytes = #data
kept.version = kept.version + 1
put_context(id, kept)
call('HSET', at('documents'), id, data)
if kept.holders > 0 then call('ZADD', at('contexts-at'), 'XX', int(now + LINGER), id) end
return { 'written', int(kept.version) }
