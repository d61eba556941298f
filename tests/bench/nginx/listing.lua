-- ListObjects, both versions: from the sorted keys of a set, or pages made beforehand.

local M = {}
M.MODIFIED = "2026-01-01T00:00:00.000Z"
M.HTTP_MODIFIED = "Thu, 01 Jan 2026 00:00:00 GMT"

-- The index of the first key that is greater than *after*.
local function first_after(keys, after)
  local low, high = 1, #keys + 1
  while low < high do
    local middle = math.floor((low + high) / 2)
    if keys[middle] > after then high = middle else low = middle + 1 end
  end
  return low
end

local function escape(key)
  return (key:gsub("[^%w%-%._~/]", function(c) return string.format("%%%02X", c:byte()) end))
end

local function contents(key, size, etag)
  return "<Contents><Key>" .. escape(key) .. "</Key><LastModified>" .. M.MODIFIED
    .. "</LastModified><ETag>&quot;" .. etag .. "&quot;</ETag><Size>" .. size
    .. "</Size><StorageClass>STANDARD</StorageClass></Contents>"
end

local function start_of(args)
  local after = args["continuation-token"] or args["start-after"] or args["marker"] or ""
  return after == true and "" or after
end

-- Sets too large for Lua's memory have files of 1,000 keys, which end at keys that are known.
function M.static_page(set, kind, args)
  if not set.generated then return nil end
  if kind == "sink" then return "/_files/" .. set.name .. "/pages/empty.xml" end
  local index = tonumber(start_of(args):match("(%d+)$") or "-1") + 1
  if index >= set.generated then return "/_files/" .. set.name .. "/pages/empty.xml" end
  return string.format("/_files/%s/pages/%06d.xml", set.name, math.floor(index / 1000))
end

local function row(set, key, holds, prefix, delimiter, groups)
  local entry = set.by_key[key]
  local size, etag = entry.size, entry.etag
  if holds then
    local record = holds(key)
    if not record then return nil end
    size, etag = record.size, record.etag
  end
  local stop = delimiter and key:find("/", #prefix + 1, true)
  if not stop then return contents(key, size, etag) end
  local group = key:sub(1, stop)
  if groups[group] then return nil end
  groups[group] = true
  return "<CommonPrefixes><Prefix>" .. escape(group) .. "</Prefix></CommonPrefixes>"
end

-- *holds* says what a target has of a key; nil for a source, which has all.
function M.page(set, bucket, args, holds)
  local keys, prefix = set.keys, args.prefix
  prefix = type(prefix) == "string" and prefix or ""
  local delimiter = args.delimiter == "/"
  local most = math.min(tonumber(args["max-keys"] or 1000) or 1000, 1000)
  local after = start_of(args)
  local index = first_after(keys, after < prefix and prefix:sub(1, -2) or after)
  local out, groups, last = {}, {}, ""
  while index <= #keys and #out < most do
    local key = keys[index]
    if key:sub(1, #prefix) == prefix then
      local text = row(set, key, holds, prefix, delimiter, groups)
      if text then out[#out + 1] = text end
      last = key
    elseif key > prefix then
      index = #keys
    end
    index = index + 1
  end
  local is_truncated = index <= #keys
  local more = is_truncated and ("<NextContinuationToken>" .. escape(last) .. "</NextContinuationToken><NextMarker>"
    .. escape(last) .. "</NextMarker>") or ""
  return "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>"
    .. bucket .. "</Name><Prefix>" .. escape(prefix) .. "</Prefix><KeyCount>" .. #out .. "</KeyCount><MaxKeys>" .. most
    .. "</MaxKeys><EncodingType>url</EncodingType><IsTruncated>" .. tostring(is_truncated) .. "</IsTruncated>"
    .. more .. table.concat(out) .. "</ListBucketResult>"
end

return M
