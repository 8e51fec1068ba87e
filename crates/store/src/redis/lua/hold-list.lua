-- The same for whoever asks for all services at once: this key is none of theirs, and has a hash tag that no service has.
-- ARGV: service, router, calls, for how long that counts. The key lives no longer than its last word.
local word, held, lease = ARGV[1] .. ' ' .. ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local key = P .. 'words'
if held == 0 then
  call('HDEL', key, word)
elseif call('HEXISTS', key, word) == 1 or call('HLEN', key) < MAX_WORDS then
  call('HSET', key, word, int(held) .. ' ' .. int(now + lease))
  call('PEXPIRE', key, int(lease))
end
return 1
