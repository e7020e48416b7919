#!lua name=@LIBRARY@
-- The room log in Redis: each operation is one atomic step. Loaded as one function library, named by the hash of this text.
--
-- Keys of a room, in one hash slot:  {p:room}:log   stream, entry <seq>-0, field d = the publication as JSON
--                                    {p:room}:meta  hash, e = epoch, s = seq of the last message
--                                    {p:room}:n:…  string, "<n> <id>" = the last message of one sender
--                                    {p:room}:here  hash, who is there: see attend
-- Channel of a room:                 {p:room}       the same JSON, and who is there when that changes
-- Redis numbers in Lua are doubles: milliseconds since 1970 and seqs stay exact up to 2^53.

local START = '0-0'

local function number(value)
  return string.format('%.0f', value)
end

local function position(epoch, seq)
  return number(epoch) .. '-' .. number(seq)
end

local function milliseconds()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
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
  local now = milliseconds()
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
  local now = milliseconds()
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

-- Who is in a room: hash {p:room}:here. Field '@' = the nodes that have somebody there, as JSON with the end of each one's lease in milliseconds
-- since 1970; one field for each occupant = the nodes that hold it, each with a space behind it.
local NODES = '@'

local function leases_of(key)
  local text = redis.call('HGET', key, NODES)
  return text and cjson.decode(text) or {}
end

-- Takes the nodes of a set out of everybody's field.
local function without_nodes(nodes, gone)
  return (string.gsub(nodes, '(%S+) ', function(node) return gone[node] and '' or nil end))
end

-- Takes some nodes out of a room. Returns whether somebody is gone by that.
local function forget_nodes(key, gone)
  local changed = false
  local all = redis.call('HGETALL', key)
  for index = 1, #all, 2 do
    local occupant, nodes = all[index], all[index + 1]
    local rest = occupant == NODES and nodes or without_nodes(nodes, gone)
    if rest == '' then
      redis.call('HDEL', key, occupant)
      changed = true
    elseif rest ~= nodes then
      redis.call('HSET', key, occupant, rest)
    end
  end
  return changed
end

local function roster_json(count, here)
  local list = here and (',"list":' .. (#here > 0 and cjson.encode(here) or '[]')) or ''
  return '{"v":1,"here":{"count":' .. number(count) .. list .. '}}'
end

-- What one node has to say of who is there. keys: here, channel (names the slot). args: the node; milliseconds of its lease, 0 if nobody is there
-- any more; most occupants to list; 1 if this is everybody that the node has, rather than a change; how many have come; they; who has gone.
-- Returns {'ok', everybody as JSON}, which all nodes are told if it has changed; or {'whole', ''} if the node is not known here: it has to say everybody.
local function attend(keys, args)
  local key, node, lease, most, whole, joined = keys[1], args[1], tonumber(args[2]), tonumber(args[3]), args[4] == '1', tonumber(args[5])
  local now = milliseconds()
  local leases = leases_of(key)
  if not whole and not leases[node] then
    return { 'whole', '' }
  end
  local gone = {}
  for other, ends in pairs(leases) do
    if ends <= now or (whole and other == node) then
      gone[other] = true
      leases[other] = nil
    end
  end
  local changed = next(gone) ~= nil and forget_nodes(key, gone)
  for index = 6, 5 + joined do
    local nodes = redis.call('HGET', key, args[index])
    if not nodes then
      redis.call('HSET', key, args[index], node .. ' ')
      changed = true
    elseif not string.find(nodes, node .. ' ', 1, true) then
      redis.call('HSET', key, args[index], nodes .. node .. ' ')
    end
  end
  for index = 6 + joined, #args do
    local nodes = redis.call('HGET', key, args[index])
    local rest = nodes and without_nodes(nodes, { [node] = true })
    if rest == '' then
      redis.call('HDEL', key, args[index])
      changed = true
    elseif rest ~= nodes then
      redis.call('HSET', key, args[index], rest)
    end
  end
  leases[node] = lease > 0 and now + lease or nil
  local last
  for _, ends in pairs(leases) do
    last = math.max(last or 0, ends)
  end
  if last then
    redis.call('HSET', key, NODES, cjson.encode(leases))
    redis.call('PEXPIREAT', key, number(last))
  else
    redis.call('DEL', key)
  end
  local here
  local count = math.max(redis.call('HLEN', key) - 1, 0)
  if count <= most then
    here = {}
    for _, occupant in ipairs(redis.call('HKEYS', key)) do
      if occupant ~= NODES then
        here[#here + 1] = occupant
      end
    end
  end
  local roster = roster_json(count, here)
  if changed then
    redis.call('PUBLISH', keys[2], roster)
  end
  return { 'ok', roster }
end

-- Reads without writing. keys: here. args: most occupants to list. Returns everybody as JSON.
local function roster(keys, args)
  local now, gone = milliseconds(), {}
  for node, ends in pairs(leases_of(keys[1])) do
    if ends <= now then
      gone[node] = true
    end
  end
  local here = {}
  local all = redis.call('HGETALL', keys[1])
  for index = 1, #all, 2 do
    if all[index] ~= NODES and without_nodes(all[index + 1], gone) ~= '' then
      here[#here + 1] = all[index]
    end
  end
  return roster_json(#here, #here <= tonumber(args[1]) and here or nil)
end

redis.register_function('@LIBRARY@_publish', publish)
redis.register_function('@LIBRARY@_ephemeral', ephemeral)
redis.register_function { function_name = '@LIBRARY@_read', callback = read, flags = { 'no-writes' } }
redis.register_function('@LIBRARY@_attend', attend)
-- The same where nobody has come: it only makes room, so it may run when Redis is full.
redis.register_function { function_name = '@LIBRARY@_recede', callback = attend, flags = { 'allow-oom' } }
redis.register_function { function_name = '@LIBRARY@_roster', callback = roster, flags = { 'no-writes' } }
