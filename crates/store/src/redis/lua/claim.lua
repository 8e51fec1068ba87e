-- A router claims a place: every rule about ids, contexts, limits, pins and capacity in one step.
-- ARGV: ticket, session, user, verified user, hash of the token shown, new context, hash of the new token, pin,
-- service limit, user limit, reservation, retention, how far the new token is once the client has connected, the number of
-- accounts, each with its claims a minute, then the ranked workers. Empty and 0 stand for none.
local ticket, id, user, verified, token, fresh, next_token, pin = unpack(ARGV, 1, 8)
local service_limit, user_limit = tonumber(ARGV[9]), tonumber(ARGV[10])
sweep()

local function placed(record, resumed, kept, holder)
  return { 'placed', record.worker, http(record.worker), call('HGET', worker(record.worker), 'epoch') or '0',
    holder or '', record.context, resumed and '1' or '0', int(record.generation), int(kept.version), document(record.context) }
end

local holder = call('HGET', P .. 'ids', id)
local replay = session(ticket)
if replay then
  local kept = context(replay.context)
  if kept then return placed(replay, replay.context ~= fresh, kept, holder ~= ticket and holder) end
end

-- For each account the one instant at which it could claim all at once again (the cell rate of ITU-T I.371): a key that lasts
-- until then, so nothing is to be tidied up. All are looked at before one is counted.
local accounts = tonumber(ARGV[14])
local full_again = {}
for i = 15, 13 + 2 * accounts, 2 do
  local key, interval = P .. 'rate:' .. ARGV[i], 60000 / tonumber(ARGV[i + 1])
  local ahead = math.max(0, (tonumber(call('GET', key) or 0)) - now)
  local over = ahead + interval - 60000
  -- Less than a part of a millisecond is what became of it as a text.
  if over > 0.1 then return { 'rate_limited', int(math.ceil(over)) } end
  full_again[#full_again + 1] = { key, now + ahead + interval, ahead + interval }
end
for _, account in ipairs(full_again) do
  call('SET', account[1], string.format('%.3f', account[2]), 'PX', int(math.ceil(account[3])))
end

local held = holder and session(holder)
local shared = held and context(held.context)
if held then
  -- As when a context is shared: who one is does not say which of one's connections is to end.
  if not shared or not by_token(shared, token, verified) then
    return { 'duplicate', held.worker, http(held.worker) }
  end
  local wants = call('HGET', P .. 'wants:' .. held.worker, holder)
  if wants and cjson.decode(wants).reason then return { 'closing' } end
else
  local left = token ~= '' and settles() or 0
  if left > 0 and may_live(id) then return { 'settling', int(left) } end
  if service_limit > 0 and call('HLEN', P .. 'ids') >= service_limit then return { 'service_limit' } end
  if user ~= '' and user_limit > 0
    and call('ZLEXCOUNT', P .. 'users', '[' .. user .. '\0', '(' .. user .. '\1') >= user_limit then
    return { 'user_limit' }
  end
end

local ranked, pinned = { unpack(ARGV, 15 + 2 * accounts) }, ''
if pin ~= '' then
  local first = call('ZRANGEBYLEX', P .. 'pins', '[' .. pin .. '\0', '(' .. pin .. '\1', 'LIMIT', 0, 1)[1]
  local bound = first and session(string.sub(first, -16))
  if bound then ranked, pinned = { bound.worker }, bound.worker end
end
local chosen
for _, name in ipairs(ranked) do
  -- A worker that has not said that it is ready has no gate, and none that is open.
  local known = call('HMGET', worker(name), 'gate', 'capacity')
  if known[1] == 'open' and (call('HGET', P .. 'wants:' .. name, 'gate') or 'open') == 'open'
    and call('HLEN', P .. 'on:' .. name) < tonumber(known[2]) then
    chosen = name
    break
  end
end
if not chosen then return { 'no_capacity', pinned } end

local opened, resumed, kept
if held then
  opened, resumed, kept = held.context, true, shared
  share_context(opened, kept, token, next_token)
else
  opened, resumed, kept = open_context(id, token, verified, fresh, next_token)
  if not opened then return redis.error_reply('FULL no room') end
end

-- Somebody was taking the id over already and has not connected: the client has tried again since.
local earlier = held and call('HGET', P .. 'moving', id)
if earlier then
  call('HDEL', P .. 'moving', id)
  local record = session(earlier)
  if record and record.phase == 'reserved' then
    finish(earlier, 'superseded')
  elseif record then
    want(earlier, record, 'End', 'superseded')
  end
end

local record = { id = id, worker = chosen, phase = 'reserved', since = now, context = opened,
  generation = kept.generation, retention = tonumber(ARGV[12]) }
if user ~= '' then record.user = user end
if pin ~= '' then record.pin = pin end
if held then record.moves, record.token = ARGV[13], next_token end
insert(ticket, record)
call('ZADD', at('reserved'), int(now + tonumber(ARGV[11])), ticket)
if held then call('HSET', at('moving'), id, ticket) else occupy(id, ticket, record) end
return placed(record, resumed, kept, held and holder)
