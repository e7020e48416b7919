-- The other half of the library that log.lua begins: who is in a room.
--
-- Key: hash {p:room}:here. Field '@' = the nodes that have somebody there, as JSON with the end of each one's lease in milliseconds
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
    -- Its own lease may have ended while the node was held up: what it said stands, as nobody has taken it out yet.
    local over = ends <= now and other ~= node
    if over or (other == node and (whole or lease == 0)) then
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

-- Renews one node's leases in rooms of which it has nothing new to say. keys: here and channel of each. args: the node; milliseconds of its lease;
-- most occupants to list. Returns for each what attend does; {'whole', ''} too for a room that it fails in, so that the others do not mind.
local function renew(keys, args)
  local replies = {}
  for index = 1, #keys, 2 do
    local same = { args[1], args[2], args[3], '0', '0' }
    local done, reply = pcall(attend, { keys[index], keys[index + 1] }, same)
    replies[#replies + 1] = done and reply or { 'whole', '' }
  end
  return replies
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

redis.register_function('@LIBRARY@_attend', attend)
-- The same where nobody has come: it only makes room, so it may run when Redis is full.
redis.register_function { function_name = '@LIBRARY@_recede', callback = attend, flags = { 'allow-oom' } }
redis.register_function { function_name = '@LIBRARY@_renew', callback = renew, flags = { 'allow-oom' } }
redis.register_function { function_name = '@LIBRARY@_roster', callback = roster, flags = { 'no-writes' } }
