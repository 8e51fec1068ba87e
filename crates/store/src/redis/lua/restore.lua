-- The owner writes again what it has. ARGV: worker, epoch, then for each session: ticket, session, user, pin, phase, age,
-- retention, detail, context, its verified user, hash of its token, that token's generation, its version, its document.
-- Returns 'kept' or 'superseded' for each.
local name = ARGV[1]
local refused = fenced(name, ARGV[2])
if refused then return refused end

local function restore_context(key, id, user, token, generation, version, data)
  local kept = stored_context(id)
  if kept then
    kept.holders = kept.holders + 1
    kept.expires = nil
    -- Another holder knows its tokens too: the one that was given out last is good.
    if tonumber(generation) > kept.generation then
      kept.token, kept.generation = token, tonumber(generation)
      kept.offered, kept.previous, kept['until'] = nil, nil, nil
    end
    put_context(id, kept)
    call('ZREM', P .. 'contexts-at', id)
    return true
  end
  local bytes = version == '0' and 0 or #data
  if call('HLEN', P .. 'contexts') >= MAX_CONTEXTS
    or tonumber(call('GET', P .. 'contexts-bytes') or 0) + bytes > MAX_BYTES then
    return false
  end
  kept = { key = key, token = token, generation = tonumber(generation), holders = 1, version = tonumber(version), bytes = bytes }
  if user ~= '' then kept.user = user end
  -- Its client has been elsewhere, and was given a later token.
  local empty = take_empty(key, id)
  if empty and empty.generation > kept.generation then
    kept.token, kept.offered, kept.previous, kept['until'] = empty.token, empty.offered, empty.previous, empty['until']
    kept.generation, kept.user = empty.generation, empty.user or kept.user
  end
  put_context(id, kept)
  call('HSET', at('documents'), id, data)
  if bytes > 0 then call('INCRBY', at('contexts-bytes'), int(bytes)) end
  local ids = contexts_of(key)
  ids[#ids + 1] = id
  put_contexts_of(key, ids)
  return true
end

-- Whether the holder of an id keeps it from a session that is written again. Where both have one context, its client is at the one that was
-- given the later token, if it has got there: the other one's worker was cut off while it went on elsewhere. Of two that know nothing of
-- each other the elder stays.
local function keeps(held, since, phase, id, generation)
  local kept = held.context == id and stored_context(id)
  if kept and kept.generation > generation and held.phase == 'active' then return true end
  if kept and kept.generation < generation and phase == 'active' then return false end
  return held.since <= since
end

local counted_since = tonumber(call('HGET', P .. 'traffic', 'since') or now)

local function restore(ticket, id, user, pin, phase, age, retention, detail, ...)
  local known = session(ticket)
  if known then
    if known.worker ~= name then return 'superseded' end
    if call('HGET', P .. 'ids', id) == ticket then comes(known) end
    known.phase = phase
    put(ticket, known)
    call('HSET', at('details'), ticket, detail)
    call('ZREM', P .. 'reserved', ticket)
    return 'kept'
  end
  local since = now - tonumber(age)
  local holder = call('HGET', P .. 'ids', id)
  local held = holder and session(holder)
  -- What nobody has confirmed is nobody's call yet.
  if held and held.phase ~= 'reserved' and keeps(held, since, phase, (...), tonumber((select(4, ...)))) then return 'superseded' end
  if not restore_context(id, ...) then return redis.error_reply('FULL no room') end
  if held then
    local taker = call('HGET', P .. 'moving', id)
    local taking = taker and session(taker)
    call('HDEL', P .. 'moving', id)
    if taking then want(taker, taking, 'End', 'superseded') end
    vacate(id, held)
    -- Its client is the one that is written again.
    if held.came then tally('departed') end
    want(holder, held, 'End', 'superseded')
  end
  local record = { id = id, worker = name, phase = phase, since = since, context = (...),
    generation = tonumber((select(4, ...))), retention = tonumber(retention) }
  if user ~= '' then record.user = user end
  if pin ~= '' then record.pin = pin end
  if since >= counted_since and tonumber(age) <= RECENT then tally('arrived') end
  record.came = true
  insert(ticket, record)
  call('HSET', at('details'), ticket, detail)
  occupy(id, ticket, record)
  return 'kept'
end

local reply = {}
for i = 3, #ARGV, 14 do
  local outcome = restore(unpack(ARGV, i, i + 13))
  if type(outcome) == 'table' then return outcome end
  reply[#reply + 1] = outcome
end
return reply
