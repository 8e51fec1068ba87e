-- The owner has seen to a track. ARGV: worker, epoch, ticket, track, result.
local name, ticket, track = ARGV[1], ARGV[3], ARGV[4]
local refused = fenced(name, ARGV[2])
if refused then return refused end
local key = P .. 'wants:' .. name
local text, record = call('HGET', key, ticket), session(ticket)
if not text or not record or record.worker ~= name then return 0 end
local wants = cjson.decode(text)
local rest = without(wants.tracks or {}, track)
if #rest == #(wants.tracks or {}) then return 0 end
wants.tracks = #rest > 0 and rest or nil
if wants.tracks or wants.reason then call('HSET', key, ticket, cjson.encode(wants)) else call('HDEL', key, ticket) end
call('HSET', at('acks'), ticket .. ' ' .. track, ARGV[5])
record.acks = without(record.acks or {}, track)
record.acks[#record.acks + 1] = track
put(ticket, record)
wake('wake:session:' .. record.id)
return 1
