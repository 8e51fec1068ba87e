-- Goes before every script: the names of keys, the clock, the schema, and the steps that several scripts share.
--
-- KEYS[1] is `sf:{service}:schema`. The other keys of the service have the same hash tag, so one node has them all, and are
-- named here. SCHEMA, LINGER, CLOSED_PER_KEY and the like are put before this text by the program.
local P = string.sub(KEYS[1], 1, -7)
local call = redis.call
local time = call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local found = call('GET', KEYS[1])
if not found then
  call('SET', KEYS[1], SCHEMA, 'PX', LINGER)
elseif found ~= SCHEMA then
  return redis.error_reply('SCHEMA ' .. found)
end

-- Keys that this script writes; each lives a day more at its end.
local written = {}
local function at(name)
  written[name] = true
  return P .. name
end

local function int(number) return string.format('%.0f', number) end

-- The keys that a service has once. They live as long as any worker renews, and a day more.
local SHARED = { 'schema', 'epoch', 'leases', 'sessions', 'details', 'ids', 'by-id', 'moving', 'reserved', 'users',
  'pins', 'over', 'over-at', 'last', 'acks', 'contexts', 'documents', 'contexts-of', 'contexts-at', 'contexts-bytes',
  'traffic' }

local function touch()
  for _, name in ipairs(SHARED) do call('PEXPIRE', P .. name, LINGER) end
end

local function wake(topic) call('SPUBLISH', P .. topic, '') end

local function session(ticket)
  local text = call('HGET', P .. 'sessions', ticket)
  return text and cjson.decode(text)
end

local function put(ticket, record) call('HSET', at('sessions'), ticket, cjson.encode(record)) end

-- Whose outputs a session's are, beside whoever has its token: a verified user's, as its owner describes it; until it has, whoever
-- it counts for. Nobody's where the user is only said to be one.
local function owner_of_outputs(ticket, record)
  if not record.user then return nil end
  local detail = call('HGET', P .. 'details', ticket)
  if detail and cjson.decode(detail).verified ~= true then return nil end
  return record.user
end

-- Contexts ------------------------------------------------------------------------------------------------------------

local function stored_context(id)
  local text = call('HGET', P .. 'contexts', id)
  return text and cjson.decode(text)
end

-- One that has expired is known to nobody, and merely has not been forgotten yet.
local function context(id)
  local kept = stored_context(id)
  return kept and not (kept.expires and kept.expires <= now) and kept
end

local function put_context(id, kept) call('HSET', at('contexts'), id, cjson.encode(kept)) end

-- The contexts of an id, the one opened last at the end.
local function contexts_of(key)
  local text = call('HGET', P .. 'contexts-of', key)
  return text and cjson.decode(text) or {}
end

local function put_contexts_of(key, ids)
  if #ids == 0 then call('HDEL', P .. 'contexts-of', key) else call('HSET', at('contexts-of'), key, cjson.encode(ids)) end
end

local function without(ids, id)
  local rest = {}
  for _, other in ipairs(ids) do if other ~= id then rest[#rest + 1] = other end end
  return rest
end

local function forget_context(id)
  local kept = stored_context(id)
  if not kept then return end
  call('HDEL', P .. 'contexts', id)
  call('HDEL', P .. 'documents', id)
  call('ZREM', P .. 'contexts-at', id)
  if kept.bytes > 0 then call('DECRBY', P .. 'contexts-bytes', int(kept.bytes)) end
  put_contexts_of(kept.key, without(contexts_of(kept.key), id))
end

-- A few at a time: everybody waits for the server, also when thousands that ended together expire together.
local function expire_contexts()
  for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'contexts-at', '-inf', int(now), 'LIMIT', 0, EXPIRED_AT_ONCE)) do
    forget_context(id)
  end
end

-- Makes room by forgetting the one that would be forgotten next; those that sessions hold are not among them.
local function forget_oldest(spared)
  for _, id in ipairs(call('ZRANGE', P .. 'contexts-at', 0, 15)) do
    local kept = id ~= spared and stored_context(id)
    if kept and kept.holders == 0 then
      forget_context(id)
      return true
    end
  end
  return false
end

-- Tokens: `token` is good, `offered` is what a client on its way was given for it, and `previous` is the one before it while its
-- successor may have been lost on its way. `generation` is the place of the one given out last.

-- Whether nobody has shown this one yet.
local function is_new(kept, token) return token ~= '' and (kept.token == token or kept.offered == token) end

local function takes(kept, token)
  return is_new(kept, token) or token ~= '' and kept.previous == token and now < kept['until']
end

-- `shown` has been taken, and stays good beside `next_token` until one of the two is taken or `next_token` is confirmed. One that
-- was replaced before stays what it is: good for its time, and no longer, beside the one that replaced it.
local function offer_token(kept, shown, next_token)
  if is_new(kept, shown) then kept.token, kept.previous, kept['until'] = shown, nil, nil end
  kept.offered = next_token
  kept.generation = kept.generation + 1
end

-- The client is there for which `token` was offered: every other one is void, but what was shown for one that may be lost yet.
-- False if it was void itself.
local function confirm_token(kept, token, delivery)
  if kept.offered == token then
    if delivery ~= 'sent' then
      kept.previous, kept['until'] = nil, nil
    elseif not kept.previous then
      kept.previous, kept['until'] = kept.token, now + TOKEN_GRACE
    end
    kept.token, kept.offered = token, nil
  end
  return kept.token == token
end

-- `shown` has been taken, or somebody was known without one; from now on it is `next_token`. A token is taken at most twice.
local function replace_token(kept, shown, next_token)
  local is_first = is_new(kept, shown)
  kept.offered = nil
  kept.previous = is_first and shown or nil
  kept['until'] = is_first and now + TOKEN_GRACE or nil
  kept.token = next_token
  kept.generation = kept.generation + 1
end

-- Whether a token or a verified user is good for a context. A token is no way around an identity.
local function by_token(kept, token, user) return takes(kept, token) and (not kept.user or kept.user == user) end
local function by_user(kept, _, user) return user ~= '' and kept.user == user end

-- Contexts that nothing was written to and nobody holds: a client whose worker is lost is known by its token where it comes back. They
-- are beside all others, a few of a key, and not for long: who offers in vain takes no room from anybody.

-- Those of a key, the one that expires last at the end.
local function empties(key)
  local text = call('GET', P .. 'empty:' .. key)
  local rest = {}
  for _, empty in ipairs(text and cjson.decode(text) or {}) do
    if empty.expires > now then rest[#rest + 1] = empty end
  end
  return rest
end

local function put_empties(key, all)
  local name = P .. 'empty:' .. key
  if #all == 0 then call('DEL', name) else call('SET', name, cjson.encode(all), 'PX', EMPTY_RETENTION) end
end

-- Forgets it as such, and returns it.
local function take_empty(key, id)
  local all, rest, taken = empties(key), {}, nil
  for _, empty in ipairs(all) do
    if empty.id == id then taken = empty else rest[#rest + 1] = empty end
  end
  if taken then put_empties(key, rest) end
  return taken
end

local function remember_empty(id, kept, retention)
  local all = empties(kept.key)
  all[#all + 1] = { id = id, expires = now + math.min(retention, EMPTY_RETENTION), user = kept.user, token = kept.token,
    offered = kept.offered, previous = kept.previous, ['until'] = kept['until'], generation = kept.generation }
  table.sort(all, function(a, b) return a.expires < b.expires or a.expires == b.expires and a.id < b.id end)
  if #all > CLOSED_PER_KEY then table.remove(all, 1) end
  put_empties(kept.key, all)
end

-- The one of a key that a token is good for is as all others again.
local function revive(key, token, user)
  for _, empty in ipairs(empties(key)) do
    if by_token(empty, token, user) then
      local id = empty.id
      take_empty(key, id)
      empty.id, empty.expires = nil, nil
      empty.key, empty.holders, empty.version, empty.bytes = key, 0, 0, 0
      put_context(id, empty)
      return id
    end
  end
end

-- Opens an earlier context of the key or a new one; nil when there is no room. The token is replaced.
local function open_context(key, token, user, fresh, next_token)
  expire_contexts()
  local ids, match = contexts_of(key), nil
  for _, fits in ipairs({ by_token, by_user }) do
    for i = #ids, 1, -1 do
      local kept = not match and context(ids[i])
      if kept and fits(kept, token, user) then match = ids[i] end
    end
  end
  if not match then
    if call('HLEN', P .. 'contexts') >= MAX_CONTEXTS then
      if not forget_oldest() then return nil end
      ids = contexts_of(key)
    end
    match = token ~= '' and revive(key, token, user)
  end
  if match then
    local kept = context(match)
    kept.holders = kept.holders + 1
    kept.expires = nil
    replace_token(kept, token, next_token)
    if user ~= '' then kept.user = kept.user or user end
    put_context(match, kept)
    call('ZREM', P .. 'contexts-at', match)
    ids = without(ids, match)
    ids[#ids + 1] = match
    put_contexts_of(key, ids)
    return match, true, kept
  end
  local kept = { key = key, token = next_token, generation = 0, holders = 1, version = 0, bytes = 0 }
  if user ~= '' then kept.user = user end
  put_context(fresh, kept)
  ids[#ids + 1] = fresh
  put_contexts_of(key, ids)
  return fresh, false, kept
end

-- Opens a live session's context once more, for its client on the way to another connection.
local function share_context(id, kept, shown, next_token)
  offer_token(kept, shown, next_token)
  kept.holders = kept.holders + 1
  put_context(id, kept)
end

local function close_context(id, retention)
  local kept = context(id)
  if not kept or kept.holders == 0 then return end
  kept.holders = kept.holders - 1
  if kept.holders > 0 then return put_context(id, kept) end
  if kept.version == 0 then
    remember_empty(id, kept, retention)
    return forget_context(id)
  end
  kept.expires = now + retention
  put_context(id, kept)
  call('ZADD', at('contexts-at'), int(kept.expires), id)
  local closed = {}
  for _, other in ipairs(contexts_of(kept.key)) do
    local that = stored_context(other)
    if that and that.expires then closed[#closed + 1] = { that.expires, other } end
  end
  table.sort(closed, function(a, b) return a[1] < b[1] or a[1] == b[1] and a[2] < b[2] end)
  for i = 1, #closed - CLOSED_PER_KEY do forget_context(closed[i][2]) end
end

local function document(id) return call('HGET', P .. 'documents', id) or '{}' end

-- Workers -------------------------------------------------------------------------------------------------------------

local function worker(name) return P .. 'worker:' .. name end

-- An error unless the worker is registered and in this epoch.
local function fenced(name, epoch)
  local present = call('HGET', worker(name), 'epoch')
  if not present then return redis.error_reply('UNREGISTERED register first') end
  if present ~= epoch then return redis.error_reply('FENCED ' .. present) end
end

local function http(name) return call('HGET', worker(name), 'http') or '' end

-- Asks something of a session's owner, merged with what is asked already: its end, for a reason and with a last word for its
-- client, or a track's.
local function want(ticket, record, kind, value, message)
  local key = at('wants:' .. record.worker)
  local text = call('HGET', key, ticket)
  local wants = text and cjson.decode(text) or {}
  if kind == 'End' then
    -- The first reason stays: the owner may have acted on it already.
    if not wants.reason then wants.reason, wants.message = value, message end
  else
    call('HDEL', P .. 'acks', ticket .. ' ' .. value)
    local tracks = without(wants.tracks or {}, value)
    if #tracks < MAX_TRACKS then tracks[#tracks + 1] = value end
    table.sort(tracks)
    wants.tracks = tracks
  end
  call('HSET', key, ticket, cjson.encode(wants))
  wake('wake:worker:' .. record.worker)
end

-- Sessions ------------------------------------------------------------------------------------------------------------

local function occupy(id, ticket, record)
  call('HSET', at('ids'), id, ticket)
  call('ZADD', at('by-id'), 0, id)
  if record and record.user then call('ZADD', at('users'), 0, record.user .. '\0' .. id) end
end

-- For how long an id that nobody has may be somebody's.
local function settles()
  return math.max(0, tonumber(call('GET', P .. 'settles') or 0) - now)
end

-- How the last session of an id ended, if that is remembered.
local function last_end(id)
  local last = call('HGET', P .. 'last', id)
  local over = last and call('HGET', P .. 'over', last)
  return over and cjson.decode(over)
end

-- Whether nothing speaks against it that a session lives at a worker that has not told of it.
local function may_live(id)
  local over = last_end(id)
  return not over or over.reason == 'worker_lost'
end

local function begin_to_count()
  if not call('HGET', P .. 'traffic', 'since') then call('HSET', at('traffic'), 'since', int(now)) end
end

-- One more has come or gone.
local function tally(what) call('HINCRBY', at('traffic'), what, 1) end

-- The client of an id is there: counted once for all the sessions that it has it with.
local function comes(record)
  if not record.came then tally('arrived') end
  record.came = true
end

-- An id has lost its holder; whoever is taking it over has it now, and is the same client. Returns whether somebody is.
local function vacate(id, record)
  if record and record.user then call('ZREM', P .. 'users', record.user .. '\0' .. id) end
  local taker = call('HGET', P .. 'moving', id)
  if taker then
    local heir = session(taker)
    call('HDEL', P .. 'moving', id)
    occupy(id, taker, heir)
    if heir and record and record.came and not heir.came then
      heir.came = true
      put(taker, heir)
    end
  else
    call('HDEL', P .. 'ids', id)
    call('ZREM', P .. 'by-id', id)
  end
  return taker
end

-- Enters a session everywhere but in the tables of ids.
local function insert(ticket, record)
  put(ticket, record)
  call('HSET', at('on:' .. record.worker), ticket, record.id)
  if record.pin then call('ZADD', at('pins'), 0, record.pin .. '\0' .. ticket) end
end

-- A session is over: the one place where anything is given back.
local function finish(ticket, reason)
  local record = session(ticket)
  if not record then return end
  local id = record.id
  call('HDEL', P .. 'sessions', ticket)
  call('HDEL', P .. 'details', ticket)
  call('ZREM', P .. 'reserved', ticket)
  call('HDEL', P .. 'on:' .. record.worker, ticket)
  call('HDEL', P .. 'wants:' .. record.worker, ticket)
  if record.pin then call('ZREM', P .. 'pins', record.pin .. '\0' .. ticket) end
  if record.acks then for _, track in ipairs(record.acks) do call('HDEL', P .. 'acks', ticket .. ' ' .. track) end end
  if call('HGET', P .. 'ids', id) == ticket then
    if not vacate(id, record) and record.came then tally('departed') end
  elseif call('HGET', P .. 'moving', id) == ticket then
    call('HDEL', P .. 'moving', id)
  end
  close_context(record.context, record.retention)
  call('HSET', at('over'), ticket, cjson.encode({ id = id, context = record.context, reason = reason }))
  call('ZADD', at('over-at'), int(now + AFTERLIFE), ticket)
  call('HSET', at('last'), id, ticket)
  -- Another session may hold the context, and its outputs.
  local kept = stored_context(record.context)
  if not kept or kept.holders == 0 then
    call('PEXPIRE', P .. 'outputs:' .. record.context, AFTERLIFE)
    call('PEXPIRE', P .. 'outputs-at:' .. record.context, AFTERLIFE)
  end
  wake('wake:session:' .. id)
end

local function discard(name, reason)
  local lost = call('HKEYS', P .. 'on:' .. name)
  for _, ticket in ipairs(lost) do finish(ticket, reason) end
  call('DEL', P .. 'on:' .. name, P .. 'wants:' .. name, worker(name))
  call('ZREM', P .. 'leases', name)
  wake('wake:directory')
  return #lost
end

-- Forgets what is due, but for workers.
local function forget_over()
  for _, ticket in ipairs(call('ZRANGEBYSCORE', P .. 'reserved', '-inf', int(now))) do
    finish(ticket, 'connect_timeout')
  end
  for _, ticket in ipairs(call('ZRANGEBYSCORE', P .. 'over-at', '-inf', int(now))) do
    local over = call('HGET', P .. 'over', ticket)
    call('HDEL', P .. 'over', ticket)
    call('ZREM', P .. 'over-at', ticket)
    local id = over and cjson.decode(over).id
    if id and call('HGET', P .. 'last', id) == ticket then call('HDEL', P .. 'last', id) end
  end
end

-- Ends what lost workers held, and forgets what is due. Returns how many sessions were lost.
local function sweep()
  forget_over()
  local lost = 0
  for _, name in ipairs(call('ZRANGEBYSCORE', P .. 'leases', '-inf', int(now))) do
    lost = lost + discard(name, 'worker_lost')
  end
  return lost
end

-- What is known of a live session, as a list for the reply.
local function view(ticket)
  local record = session(ticket)
  return record and { ticket, record.id, record.worker, http(record.worker), record.user or '', record.context,
    record.phase, int(math.max(0, now - record.since)), call('HGET', P .. 'details', ticket) or '{}' }
end
