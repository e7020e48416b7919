#!lua name=@LIBRARY@
-- The room log in Redis: each operation is one atomic step. Loaded with presence.lua, which follows, as one function library, named by the hash of
-- both texts.
--
-- Keys of a room, in one hash slot:  {p:room}:log   stream, entry <seq>-0, field d = the publication as JSON
--                                    {p:room}:meta  hash, e = epoch, s = seq of the last message, r = the history that the epoch belongs to
--                                                   (identity), end:<epoch> = seq of the last message of a closed epoch that survived,
--                                                   t = until when the room needs no tending
--                                    {p:room}:n:…  string, "<n> <id>" = the last message of one sender
--                                    {p:room}:here  hash, who is there: see presence.lua
-- Channel of a room:                 {p:room}       the same JSON, and who is there when that changes
-- Redis numbers in Lua are doubles: milliseconds since 1970 and seqs stay exact up to 2^53.

local START = '0-0'
-- Bytes after which a read ends: all of Redis waits for it, and whoever asked has to hold it.
local MOST_BYTES = 512 * 1024
-- Entries that are looked at first, to see how long they are.
local SAMPLE = 8
-- Closed epochs that a room remembers.
local MOST_ENDS = 16
-- A room is tended once in a while rather than with each message: with every so manieth one it is trimmed, unless it keeps so few that this
-- would show, and its end is put off by this share more than it has to be.
local TEND_EVERY = 10
local FEW = 200
local SPARE = 1 / 100

local function number(value)
  return string.format('%.0f', value)
end

local function position(epoch, seq)
  return number(epoch) .. '-' .. number(seq)
end

-- Milliseconds since 1970, as text.
local function clock()
  local time = redis.call('TIME')
  return time[1] .. string.format('%03d', time[2] / 1000)
end

local function milliseconds()
  return tonumber(clock())
end

-- What Redis says of its replication; a replica has nothing to say: what it lacks is not lost.
local function replication()
  local info = redis.pcall('INFO', 'replication')
  if type(info) ~= 'string' then
    return ''
  elseif not string.find(info, 'role:master', 1, true) and string.find(info, 'role:slave', 1, true) then
    error({ err = "READONLY it is a replica" })
  end
  return info
end

-- Which history of this data it is: Redis takes a new one on every promotion and restart. Empty where a managed Redis does not show it: then
-- nothing notices that messages are lost.
local function identity()
  return string.match(replication(), 'master_replid:(%x+)') or ''
end

-- Whether it is that one still: looking for it takes less than taking it out.
local function is_identity(known)
  if known == '' then
    return identity() == ''
  end
  return string.find(replication(), 'master_replid:' .. known, 1, true) ~= nil
end

-- Closes the room's epoch at what survived, and opens the next. Returns it.
local function open_epoch(meta, epoch, seq, present, now)
  local ends, all = {}, redis.call('HKEYS', meta)
  for _, field in ipairs(all) do
    ends[#ends + 1] = tonumber(string.match(field, '^end:(%d+)$'))
  end
  table.sort(ends)
  for index = 1, #ends - (MOST_ENDS - 1) do
    redis.call('HDEL', meta, 'end:' .. number(ends[index]))
  end
  local next_epoch = math.max(epoch + 1, now)
  redis.call('HSET', meta, 'end:' .. number(epoch), number(seq), 'e', number(next_epoch), 'r', present)
  return number(next_epoch)
end

-- Where a room stands, in an epoch that is this history's: epoch as text, seq, the position of the last message, and until when the room may go
-- untended, as text, if it was tended.
local function stand(log, meta, now)
  local known = redis.call('HMGET', meta, 'e', 's', 'r', 't')
  local epoch, seq = known[1], tonumber(known[2])
  if not (seq and tonumber(epoch)) then
    redis.call('DEL', log) -- a log without its meta: its positions mean nothing any more
    redis.call('HSET', meta, 'e', now, 's', '0', 'r', identity())
    return now, 0, START
  end
  local last = seq == 0 and START or epoch .. '-' .. known[2]
  if not is_identity(known[3] or '') then
    epoch = open_epoch(meta, tonumber(epoch), seq, identity(), tonumber(now))
  end
  return epoch, seq, last, known[4]
end

-- Adds an entry to a log that is to be trimmed or does not exist, and puts off the end of the room's keys. args: as publish has them.
local function tend(log, meta, seq, entry, now, args)
  local spare = args[3] * SPARE
  local tended = tonumber(args[2]) < FEW and '0' or number(now + spare)
  redis.call('XADD', log, 'MAXLEN', '=', args[2], seq .. '-0', 'd', entry)
  redis.call('HSET', meta, 's', seq, 't', tended)
  redis.call('PEXPIRE', log, number(args[3] + spare))
  redis.call('PEXPIRE', meta, number(args[4] + spare))
end

-- Appends and fans out: the one that is called most, so it converts no more between text and number than it has to. keys: log, meta, channel
-- (never written: it names the slot), sender.
-- args: the entry after its head as JSON without the opening brace; messages to keep; milliseconds to keep log; to keep meta; the sender's n and
-- base; milliseconds to keep the sender.
-- Returns {'ok', position}; or for a message that is stored already {'again', its position or ''}, or before its turn {'gap', last n}.
local function publish(keys, args)
  local call, log, meta, sender = redis.call, keys[1], keys[2], keys[4]
  local last = call('GET', sender)
  local n, last_n = tonumber(args[5]), last and tonumber(string.match(last, '^%d+')) or 0
  if n ~= last_n + 1 then
    local base = tonumber(args[6])
    if n <= last_n then
      return { 'again', n == last_n and string.match(last, ' (.*)$') or '' }
    elseif n ~= base then
      return { 'gap', number(math.max(last_n, base - 1)) }
    end
  end
  local now = clock()
  local epoch, last_seq, prev, tended = stand(log, meta, now)
  local seq = number(last_seq + 1)
  local id = epoch .. '-' .. seq
  local entry = '{"v":1,"id":"' .. id .. '","prev":"' .. prev .. '","ts":' .. now .. ',' .. args[1]
  -- Times have equally many digits; 0 is before all of them.
  local rests = tended and now <= tended and last_seq % TEND_EVERY ~= 0
  if rests and call('XADD', log, 'NOMKSTREAM', seq .. '-0', 'd', entry) then
    call('HSET', meta, 's', seq)
  else
    tend(log, meta, seq, entry, now, args)
  end
  call('SET', sender, args[5] .. ' ' .. id, 'PX', args[7])
  call('PUBLISH', keys[3], entry)
  return { 'ok', id }
end

-- Fans out what is not for the log. keys: channel. args: the entry after its head as JSON without the opening brace.
local function ephemeral(keys, args)
  redis.call('PUBLISH', keys[1], '{"v":1,"ts":' .. clock() .. ',' .. args[1])
  return { 'sent', '' }
end

-- Moves a room into this history, if it is not yet. keys: log, meta.
local function fence(keys)
  if redis.call('EXISTS', keys[2]) == 1 then
    stand(keys[1], keys[2], clock())
  end
  return 'ok'
end

local function entry_id(entry)
  return string.match(entry, '^{"v":%d+,"id":"(%d+%-%d+)"')
end

-- Whether the log has the very message of a position.
local function has(log, epoch, seq)
  local key = number(seq) .. '-0'
  local entry = redis.call('XRANGE', log, key, key)[1]
  return entry ~= nil and entry_id(entry[2][2]) == position(epoch, seq)
end

-- How a position relates to the log: 'exact' = the log has what follows seq; 'reset' = it does not; otherwise the position to go back to, where
-- the epoch of the given one was closed. Of an epoch that is not remembered any more only what the log still has is known: `shown` is the seq that
-- has to be there. Returns that and the seq to go on from.
local function relate(log, meta, epoch, seq, after_epoch, after_seq, shown)
  if after_epoch == 0 and after_seq == 0 then
    return 'exact', 0
  elseif after_epoch == epoch then
    return after_seq <= seq and 'exact' or 'reset', after_seq
  end
  local closed_at = tonumber(redis.call('HGET', meta, 'end:' .. number(after_epoch)))
  if not closed_at then
    if has(log, after_epoch, shown) then
      return 'exact', after_seq
    end
    return 'reset', 0
  elseif after_seq <= closed_at then
    return 'exact', after_seq
  end
  return position(after_epoch, closed_at), closed_at
end

-- Entries of a log in the order of `command`, XRANGE or XREVRANGE, from one bound to the other: at most limit, and no more once they have MOST_BYTES.
-- Returns them, and whether that was not all.
local function entries_of(command, log, from, to, limit)
  local found, bytes, count = {}, 0, math.min(limit, SAMPLE)
  while count > 0 do
    local some = redis.call(command, log, from, to, 'COUNT', count)
    for _, entry in ipairs(some) do
      if bytes >= MOST_BYTES then
        return found, true
      end
      found[#found + 1] = entry
      bytes = bytes + #entry[2][2]
    end
    if #some < count then
      return found, false
    elseif bytes >= MOST_BYTES then
      return found, true
    end
    from = '(' .. some[#some][1]
    -- As many as will fit if they are like those.
    local fitting = math.max(1, math.floor((MOST_BYTES - bytes) * #found / (bytes + 1)))
    count = math.min(limit - #found, 4 * #found, fitting)
  end
  return found, true
end

-- Reads without writing, so that it works when Redis is full. keys: log, meta. args: epoch and seq of a position, most entries to return,
-- and 'after', 'before' or 'newest' (whatever the position).
-- Returns the last position, the one up to which the entries go, how they relate to the given one (see relate; after a reset they begin with the
-- oldest kept, before a position there are none), and the entries, oldest first. 'fence': call that first.
local function read(keys, args)
  local log, meta = keys[1], keys[2]
  local at_epoch, at_seq, limit, direction = tonumber(args[1]), tonumber(args[2]), tonumber(args[3]), args[4]
  local known, present = redis.call('HMGET', meta, 'e', 's', 'r'), identity()
  local epoch, seq = tonumber(known[1]), tonumber(known[2])
  if not (epoch and seq) then
    return { START, START, (at_epoch == 0 and at_seq == 0) and 'exact' or 'reset', {} }
  end
  if (known[3] or '') ~= present then
    return { START, START, 'fence', {} }
  end
  local top = position(epoch, seq)
  if direction ~= 'after' then
    local relation = 'exact'
    if direction == 'before' then
      relation = relate(log, meta, epoch, seq, at_epoch, at_seq - 1, at_seq)
    end
    local entries = {}
    if relation == 'exact' and limit > 0 then
      local to = direction == 'newest' and '+' or number(math.max(at_seq - 1, 0)) .. '-0'
      local found = entries_of('XREVRANGE', log, to, '-', limit)
      for index = #found, 1, -1 do
        entries[#entries + 1] = found[index][2][2]
      end
    end
    return { top, top, relation == 'exact' and 'exact' or 'reset', entries }
  end
  local relation, from = relate(log, meta, epoch, seq, at_epoch, at_seq, at_seq)
  local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  local first = oldest and tonumber(string.match(oldest[1], '^%d+')) or seq + 1
  if relation ~= 'reset' and from + 1 < first then
    relation = 'reset'
  end
  local entries, through = {}, top
  if limit > 0 then
    local start = relation == 'reset' and '-' or number(from + 1) .. '-0'
    local found, more = entries_of('XRANGE', log, start, '+', limit)
    for _, entry in ipairs(found) do
      entries[#entries + 1] = entry[2][2]
    end
    local last = found[#found]
    if last and more then
      local id, at = entry_id(last[2][2]), tonumber(string.match(last[1], '^%d+'))
      local ours = id and tonumber(string.match(id, '%d+$')) == at -- rather than what somebody else wrote there
      through = ours and id or position(epoch, at)
    end
  end
  return { top, through, relation, entries }
end

-- Where some rooms stand. keys: the meta of each. Returns the last position of each; 'fence' where it has to be read.
local function tops(keys)
  local present, found = identity(), {}
  for index, meta in ipairs(keys) do
    local known = redis.call('HMGET', meta, 'e', 's', 'r')
    local epoch, seq = tonumber(known[1]), tonumber(known[2])
    if not (epoch and seq) then
      found[index] = START
    elseif (known[3] or '') ~= present then
      found[index] = 'fence'
    else
      found[index] = position(epoch, seq)
    end
  end
  return found
end

-- Lets a node hear itself. keys: its channel. Returns the identity.
local function canary(keys)
  redis.call('PUBLISH', keys[1], '')
  return identity()
end

redis.register_function('@LIBRARY@_publish', publish)
redis.register_function('@LIBRARY@_ephemeral', ephemeral)
redis.register_function { function_name = '@LIBRARY@_fence', callback = fence, flags = { 'allow-oom' } }
redis.register_function { function_name = '@LIBRARY@_read', callback = read, flags = { 'no-writes' } }
redis.register_function { function_name = '@LIBRARY@_tops', callback = tops, flags = { 'no-writes' } }
redis.register_function { function_name = '@LIBRARY@_canary', callback = canary, flags = { 'allow-oom' } }
