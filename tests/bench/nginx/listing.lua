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

local function document(bucket, prefix, most, out, is_truncated, last)
  local more = is_truncated and ("<NextContinuationToken>" .. escape(last) .. "</NextContinuationToken><NextMarker>"
    .. escape(last) .. "</NextMarker>") or ""
  return "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>"
    .. bucket .. "</Name><Prefix>" .. escape(prefix) .. "</Prefix><KeyCount>" .. #out .. "</KeyCount><MaxKeys>" .. most
    .. "</MaxKeys><EncodingType>url</EncodingType><IsTruncated>" .. tostring(is_truncated) .. "</IsTruncated>"
    .. more .. table.concat(out) .. "</ListBucketResult>"
end

local function start_of(args)
  local after = args["continuation-token"] or args["start-after"] or args["marker"] or ""
  return after == true and "" or after
end

-- --- sets too large for Lua's memory --------------------------------------------------------------

local PAGE = 1000 -- keys of a file; the n-th file begins with the key n * PAGE

local function generated_key(index)
  return string.format("d%04d/%08d", math.floor(index / 1000), index)
end

-- The number of the first key that is greater than *after*, which may be any text.
local function first_generated_after(set, after)
  local known = tonumber(after:match("(%d+)$"))
  if known and generated_key(known) == after then return known + 1 end
  local low, high = 0, set.generated
  while low < high do
    local middle = math.floor((low + high) / 2)
    if generated_key(middle) > after then high = middle else low = middle + 1 end
  end
  return low
end

-- Gives the place of the file with the page, or its text where the page begins within a file: that
-- one ends where the file does, so that those which follow are files.
function M.generated_page(set, bucket, kind, args)
  if not set.generated then return nil end
  local folder = "/_files/" .. set.name .. "/pages/"
  if kind == "sink" then return folder .. "empty.xml" end
  local first = first_generated_after(set, start_of(args))
  local most = math.min(tonumber(args["max-keys"] or PAGE) or PAGE, PAGE)
  if first >= set.generated then return folder .. "empty.xml" end
  if first % PAGE == 0 and most == PAGE then
    return string.format("%s%06d.xml", folder, first / PAGE)
  end
  local stop = math.min(first + most, (math.floor(first / PAGE) + 1) * PAGE, set.generated)
  local out = {}
  for index = first, stop - 1 do
    out[#out + 1] = contents(generated_key(index), 4096, ngx.md5(tostring(index)))
  end
  return nil, document(bucket, "", most, out, stop < set.generated, generated_key(stop - 1))
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
  return document(bucket, prefix, most, out, index <= #keys, last)
end

return M
