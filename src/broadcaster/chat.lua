#!lua name=@LIBRARY@
-- The room log in Redis: each operation is one atomic step. Loaded as one function library, named by the hash of this text.
--
-- Keys of a room, in one hash slot:  {p:room}:log   stream, entry <seq>-0, field d = the publication as JSON
--                                    {p:room}:meta  hash, e = epoch, s = seq of the last message
--                                    {p:room}:n:…  string, "<n> <id>" = the last message of one sender
-- Channel of a room:                 {p:room}       the same JSON
-- Redis numbers in Lua are doubles: milliseconds since 1970 and seqs stay exact up to 2^53.

local START = '0-0'

local function number(value)
  return string.format('%.0f', value)
end

local function position(epoch, seq)
  return number(epoch) .. '-' .. number(seq)
end

-- Appends and fans out. keys: log, meta, channel (never written: it names the slot), and for a counted message its sender's.
-- args: the entry after its head as JSON without the opening brace; messages to keep; milliseconds to keep log; to keep meta; and for a
-- counted message n, base, milliseconds to keep the sender.
-- Returns {'ok', position}; or for a counted message that is stored already {'again', its position or ''}, or before its turn {'gap', last n}.
local function publish(keys, args)
  local log, meta, channel, sender = keys[1], keys[2], keys[3], keys[4]
  local n, base = tonumber(args[5]), tonumber(args[6])
  if sender then
    local last = redis.call('GET', sender)
    local last_n, last_id = string.match(last or '0 ', '^(%d+) (.*)$')
    last_n = tonumber(last_n)
    if n <= last_n then
      return { 'again', n == last_n and last_id or '' }
    elseif n ~= last_n + 1 and n ~= base then
      return { 'gap', number(math.max(last_n, base - 1)) }
    end
  end
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  local known = redis.call('HMGET', meta, 'e', 's')
  local epoch, seq = tonumber(known[1]), tonumber(known[2])
  local prev
  if epoch and seq then
    prev = position(epoch, seq)
  else
    redis.call('DEL', log) -- a log without its meta: its positions mean nothing any more
    epoch, seq, prev = now, 0, START
  end
  seq = seq + 1
  local id = position(epoch, seq)
  local entry = '{"v":1,"id":"' .. id .. '","prev":"' .. prev .. '","ts":' .. number(now) .. ',' .. args[1]
  redis.call('XADD', log, 'MAXLEN', '=', args[2], number(seq) .. '-0', 'd', entry)
  redis.call('HSET', meta, 'e', number(epoch), 's', number(seq))
  redis.call('PEXPIRE', log, args[3])
  redis.call('PEXPIRE', meta, args[4])
  if sender then
    redis.call('SET', sender, number(n) .. ' ' .. id, 'PX', args[7])
  end
  redis.call('PUBLISH', channel, entry)
  return { 'ok', id }
end

-- Fans out what is not for the log. keys: channel. args: the entry after its head as JSON without the opening brace.
local function ephemeral(keys, args)
  local time = redis.call('TIME')
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  redis.call('PUBLISH', keys[1], '{"v":1,"ts":' .. number(now) .. ',' .. args[1])
  return { 'sent', '' }
end

-- Reads without writing, so that it works when Redis is full. keys: log, meta. args: epoch and seq of a position, most entries to return,
-- and 'after', 'before' or 'newest' (whatever the position).
-- Returns the last position, the one up to which the entries go, 1 if they follow the given one exactly (else they begin with the oldest
-- kept; before a position: nothing), and the entries, oldest first.
local function read(keys, args)
  local log, meta = keys[1], keys[2]
  local after_epoch, after_seq, limit, direction = tonumber(args[1]), tonumber(args[2]), tonumber(args[3]), args[4]
  local known = redis.call('HMGET', meta, 'e', 's')
  local epoch, seq = tonumber(known[1]), tonumber(known[2])
  if not (epoch and seq) then
    return { START, START, (after_epoch == 0 and after_seq == 0) and 1 or 0, {} }
  end
  if direction ~= 'after' then
    local newest = direction == 'newest'
    local known_position = newest or after_epoch == epoch and after_seq <= seq + 1
    local entries = {}
    if known_position and limit > 0 then
      local to = newest and '+' or number(math.max(after_seq - 1, 0)) .. '-0'
      local found = redis.call('XREVRANGE', log, to, '-', 'COUNT', limit)
      for index = #found, 1, -1 do
        entries[#entries + 1] = found[index][2][2]
      end
    end
    return { position(epoch, seq), position(epoch, seq), known_position and 1 or 0, entries }
  end
  local oldest = redis.call('XRANGE', log, '-', '+', 'COUNT', 1)[1]
  local first = oldest and tonumber(string.match(oldest[1], '^%d+')) or seq + 1
  local same_log = after_epoch == epoch or (after_epoch == 0 and after_seq == 0)
  local continuous = same_log and after_seq + 1 >= first and after_seq <= seq
  local entries, through = {}, seq
  if limit > 0 then
    local from = continuous and number(after_seq + 1) .. '-0' or '-'
    for _, entry in ipairs(redis.call('XRANGE', log, from, '+', 'COUNT', limit)) do
      entries[#entries + 1] = entry[2][2]
      if #entries == limit then
        through = tonumber(string.match(entry[1], '^%d+'))
      end
    end
  end
  return { position(epoch, seq), position(epoch, through), continuous and 1 or 0, entries }
end

redis.register_function('@LIBRARY@_publish', publish)
redis.register_function('@LIBRARY@_ephemeral', ephemeral)
redis.register_function { function_name = '@LIBRARY@_read', callback = read, flags = { 'no-writes' } }
