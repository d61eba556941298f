-- An S3 server that costs its clients as little as it can: sources are files, targets are
-- compared with them and forgotten. Whatever a target takes is held against the source's bytes,
-- so every run is verified in full, and the ETags are true MD5s.

local ffi = require "ffi"
local listing = require "listing"
local body = require "body"

ffi.cdef [[
unsigned char *MD5(const unsigned char *d, size_t n, unsigned char *md);
void *mmap(void *addr, size_t length, int prot, int flags, int fd, long offset);
int open(const char *path, int flags);
int close(int fd);
int prctl(int option, unsigned long value);
int memcmp(const void *a, const void *b, size_t n);
]]

local M = {}
local stored, md5s = ngx.shared.stored, ngx.shared.md5s
local digest = ffi.new("unsigned char[16]")
local SMALL = 65536 -- bytes; up to here a real MD5 is as cheap as a comparison
local sets = {}

-- --- what there is ----------------------------------------------------------------------------

-- An index has one line an object: key, size, ETag, CRC64NVME, part size, the MD5 of each part.
local function load_set(folder, name)
  local set = { name = name, folder = folder .. "/" .. name, keys = {}, by_key = {} }
  for line in io.lines(set.folder .. "/index.tsv") do
    local key, size, etag, crc, part_size, parts =
      line:match("^([^\t]*)\t([^\t]*)\t([^\t]*)\t([^\t]*)\t([^\t]*)\t(.*)$")
    local entry = {
      key = key, size = tonumber(size), etag = etag, crc = crc, part_size = tonumber(part_size),
      path = set.folder .. "/objects/" .. key, md5s = {}, set = set,
    }
    local offset = 0
    for md5 in parts:gmatch("%x+") do
      local length = entry.part_size > 0 and math.min(entry.part_size, entry.size - offset) or entry.size
      entry.md5s[offset .. "+" .. length] = md5
      offset = offset + length
    end
    set.keys[#set.keys + 1] = key
    set.by_key[key] = entry
  end
  local pages = io.open(set.folder .. "/pages/total")
  if pages then
    set.generated = pages:read("*n")
    pages:close()
  end
  return set
end

function M.load(folder)
  -- Every piece of a body is a Lua string: with the usual pause of 200 % the collector walks over
  -- the index once for every few MB that arrive: a sixth of the CPU with 5,000 objects of 256 KiB.
  collectgarbage("setpause", 1000)
  for name in io.lines(folder .. "/sets") do
    sets[name] = load_set(folder, name)
  end
end

-- nginx's workers outlive a master that was killed; these must not.
function M.end_with_parent()
  ffi.C.prctl(1, 9) -- PR_SET_PDEATHSIG, SIGKILL
end

-- "small" is a source, "to-small" a target that starts empty, "same-small" an equal copy.
local function find_bucket(bucket)
  if sets[bucket] then return sets[bucket], "source" end
  local kind, name = bucket:match("^(%a+)%-(.+)$")
  if (kind == "to" or kind == "same") and sets[name] then
    return sets[name], kind == "to" and "sink" or "source"
  end
end

-- --- bytes ------------------------------------------------------------------------------------

local function hex(raw)
  return (raw:gsub(".", function(c) return string.format("%02x", c:byte()) end))
end

local function mapped(entry)
  if not entry.map then
    local fd = ffi.C.open(entry.path, 0)
    assert(fd >= 0, entry.path)
    local map = ffi.C.mmap(nil, entry.size, 1, 1, fd, 0) -- PROT_READ, MAP_SHARED
    ffi.C.close(fd)
    assert(ffi.cast("intptr_t", map) ~= -1, "mmap")
    entry.map = ffi.cast("const unsigned char *", map)
  end
  return entry.map
end

-- MD5s of source ranges are computed once for all workers and rounds: they would be the bottleneck.
local function md5_of_range(entry, offset, length)
  local range = offset .. "+" .. length
  local known = entry.md5s[range]
  if known then return known end
  local name = entry.path .. ":" .. range
  known = md5s:get(name)
  if not known then
    ffi.C.MD5(mapped(entry) + offset, length, digest)
    known = hex(ffi.string(digest, 16))
    md5s:set(name, known)
  end
  entry.md5s[range] = known
  return known
end

-- Takes a request's body. Gives its MD5, its size and where in the source these bytes are (nil:
-- nowhere). *number* is the part's; its place is guessed from it and proven by every byte.
local function take(entry, number)
  local length = body.announced()
  if not entry or length > entry.size or (length <= SMALL and not number) then
    local data = body.whole()
    local md5 = ngx.md5(data)
    return md5, #data, entry and #data == entry.size and md5 == md5_of_range(entry, 0, #data) and 0
  end
  local base = length > 0 and mapped(entry) or nil
  local offset, at, equal
  body.pieces(function(piece)
    if not at then
      at, equal = 0, true
      offset = number and (number - 1) * length or 0
      if offset + length > entry.size or ffi.C.memcmp(base + offset, piece, math.min(#piece, length)) ~= 0 then
        offset = entry.size - length -- the last part
      end
    end
    equal = equal and at + #piece <= length and ffi.C.memcmp(base + offset + at, piece, #piece) == 0
    at = at + #piece
  end)
  if not equal or at ~= length then return "", at or 0, nil end
  return md5_of_range(entry, offset, length), length, offset
end

-- --- answers ----------------------------------------------------------------------------------

local function answer(status, text, content_type)
  ngx.status = status
  ngx.header.content_type = content_type or "application/xml"
  ngx.header.content_length = #text
  if ngx.req.get_method() ~= "HEAD" then ngx.print(text) end
  return ngx.exit(ngx.OK)
end

local function refuse(status, code)
  return answer(status, "<?xml version=\"1.0\"?><Error><Code>" .. code .. "</Code><Message>"
    .. code .. "</Message></Error>")
end

local function check_md5(md5)
  local claimed = ngx.var.http_content_md5
  return not claimed or hex(ngx.decode_base64(claimed) or "") == md5
end

local function metadata()
  local found = {}
  for name, value in pairs(ngx.req.get_headers()) do
    if name:sub(1, 11) == "x-amz-meta-" then found[#found + 1] = name .. "=" .. tostring(value) end
  end
  return table.concat(found, "\n")
end

local function remember(bucket, key, size, etag, is_equal, meta)
  stored:set(bucket .. "/" .. key, (is_equal and "1" or "0") .. "\t" .. size .. "\t" .. etag
    .. "\t" .. (meta or ""))
end

local function recall(bucket, key)
  local record = stored:get(bucket .. "/" .. key)
  if not record then return nil end
  local is_equal, size, etag, meta = record:match("^(%d)\t(%d+)\t([^\t]*)\t(.*)$")
  return { is_equal = is_equal == "1", size = tonumber(size), etag = etag, meta = meta }
end

local function put_object(bucket, key, entry)
  local md5, size, offset = take(entry)
  if not check_md5(md5) then return refuse(400, "BadDigest") end
  remember(bucket, key, size, md5, offset == 0 and entry and size == entry.size, metadata())
  ngx.header.etag = '"' .. md5 .. '"'
  return answer(200, "")
end

local function copy_object(bucket, key)
  local from_bucket, from_key = ngx.unescape_uri(ngx.var.http_x_amz_copy_source):match("^/?([^/]+)/(.*)$")
  local set = from_bucket and find_bucket(from_bucket)
  local entry = set and set.by_key[from_key]
  if not entry then return refuse(404, "NoSuchKey") end
  remember(bucket, key, entry.size, entry.etag, key == from_key, metadata())
  return answer(200, "<?xml version=\"1.0\"?><CopyObjectResult><LastModified>" .. listing.MODIFIED
    .. "</LastModified><ETag>&quot;" .. entry.etag .. "&quot;</ETag></CopyObjectResult>")
end

local function upload_part(entry, args)
  local id, number = args.uploadId, tonumber(args.partNumber)
  if not stored:get("upload:" .. id) then return refuse(404, "NoSuchUpload") end
  local md5, size, offset = take(entry, number)
  if not check_md5(md5) then return refuse(400, "BadDigest") end
  stored:set("part:" .. id .. ":" .. number, md5 .. "\t" .. size .. "\t" .. (offset or -1))
  ngx.header.etag = '"' .. md5 .. '"'
  return answer(200, "")
end

local function create_upload(bucket, key)
  local id = "u" .. stored:incr("uploads", 1, 0)
  stored:set("upload:" .. id, metadata())
  return answer(200, "<?xml version=\"1.0\"?><InitiateMultipartUploadResult><Bucket>" .. bucket
    .. "</Bucket><Key>" .. key .. "</Key><UploadId>" .. id .. "</UploadId></InitiateMultipartUploadResult>")
end

local function complete_upload(bucket, key, entry, args)
  local id = args.uploadId
  local meta = stored:get("upload:" .. id)
  if not meta then return refuse(404, "NoSuchUpload") end
  local raw, size, count, is_equal = {}, 0, 0, entry ~= nil
  for number in body.whole():gmatch("<PartNumber>(%d+)</PartNumber>") do
    local record = stored:get("part:" .. id .. ":" .. number)
    if not record then return refuse(400, "InvalidPart") end
    local md5, length, offset = record:match("^(%x*)\t(%d+)\t(-?%d+)$")
    count = count + 1
    is_equal = is_equal and tonumber(offset) == size
    raw[count] = md5:gsub("%x%x", function(pair) return string.char(tonumber(pair, 16)) end)
    size = size + tonumber(length)
    stored:delete("part:" .. id .. ":" .. number)
  end
  stored:delete("upload:" .. id)
  local etag = ngx.md5(table.concat(raw)) .. "-" .. count
  remember(bucket, key, size, etag, is_equal and size == entry.size, meta)
  return answer(200, "<?xml version=\"1.0\"?><CompleteMultipartUploadResult><Bucket>" .. bucket
    .. "</Bucket><Key>" .. key .. "</Key><ETag>&quot;" .. etag
    .. "&quot;</ETag></CompleteMultipartUploadResult>")
end

local function list_parts(args)
  if not stored:get("upload:" .. args.uploadId) then return refuse(404, "NoSuchUpload") end
  local out = {}
  for number = 1, 10000 do
    local record = stored:get("part:" .. args.uploadId .. ":" .. number)
    if record then
      local md5, size = record:match("^(%x*)\t(%d+)")
      out[#out + 1] = "<Part><PartNumber>" .. number .. "</PartNumber><ETag>&quot;" .. md5
        .. "&quot;</ETag><Size>" .. size .. "</Size></Part>"
    end
  end
  return answer(200, "<?xml version=\"1.0\"?><ListPartsResult><IsTruncated>false</IsTruncated>"
    .. table.concat(out) .. "</ListPartsResult>")
end

local function describe(entry, etag)
  local header = ngx.header
  header.etag = '"' .. etag .. '"'
  header.content_type = "application/octet-stream"
  if ngx.var.http_x_amz_checksum_mode and entry then
    header["x-amz-checksum-crc64nvme"] = entry.crc
    header["x-amz-checksum-type"] = "FULL_OBJECT"
  end
end

local function head(size, status)
  ngx.status = status or 200
  ngx.header.last_modified = listing.HTTP_MODIFIED
  ngx.header.content_length = size
  return ngx.exit(ngx.OK)
end

local function head_object(entry, record, args)
  if record then
    describe(record.is_equal and entry, record.etag)
    for name, value in record.meta:gmatch("([^=\n]+)=([^\n]*)") do ngx.header[name] = value end
    return head(record.size)
  end
  describe(entry, entry.etag)
  local part = tonumber(args.partNumber or "")
  if part and entry.part_size > 0 then
    ngx.header["x-amz-mp-parts-count"] = math.ceil(entry.size / entry.part_size)
    return head(math.min(entry.part_size, entry.size - (part - 1) * entry.part_size), 206)
  end
  return head(entry.size)
end

local function read_object(set, kind, bucket, key)
  local entry = set.by_key[key]
  local record = kind == "sink" and recall(bucket, key) or nil
  local args = ngx.req.get_uri_args()
  if not entry or (kind == "sink" and not record) then return refuse(404, "NoSuchKey") end
  if args.tagging then
    return answer(200, "<?xml version=\"1.0\"?><Tagging><TagSet></TagSet></Tagging>")
  elseif args.uploadId then
    return list_parts(args)
  elseif ngx.req.get_method() == "HEAD" then
    return head_object(entry, record, args)
  elseif record and not record.is_equal then
    return refuse(500, "InternalError")
  end
  describe(entry, record and record.etag or entry.etag)
  stored:add("first", ngx.now())
  return ngx.exec("/_files/" .. set.name .. "/objects/" .. key)
end

-- --- requests ---------------------------------------------------------------------------------

local BARE = { -- answers about a bucket that are always the same
  location = "<LocationConstraint></LocationConstraint>",
  versioning = "<VersioningConfiguration></VersioningConfiguration>",
  uploads = "<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>",
}

local function serve_bucket(bucket, set, kind, method)
  local args = ngx.req.get_uri_args()
  if method == "HEAD" or method == "PUT" then return answer(200, "") end
  if method == "POST" then -- DeleteObjects
    body.whole()
    return answer(200, "<DeleteResult></DeleteResult>")
  end
  for name, text in pairs(BARE) do
    if args[name] then return answer(200, "<?xml version=\"1.0\"?>" .. text) end
  end
  if args["object-lock"] then return refuse(404, "ObjectLockConfigurationNotFoundError") end
  local file, text = listing.generated_page(set, bucket, kind, args)
  if text then return answer(200, text) end
  if file then
    ngx.header.content_type = "application/xml"
    return ngx.exec(file)
  end
  local holds = kind == "sink" and function(key) return recall(bucket, key) end or nil
  return answer(200, listing.page(set, bucket, args, holds))
end

local function write_object(bucket, key, set, method)
  local args = ngx.req.get_uri_args()
  local entry = set.by_key[key]
  if method == "DELETE" then
    stored:delete(args.uploadId and "upload:" .. args.uploadId or bucket .. "/" .. key)
    return answer(204, "")
  elseif method == "POST" then
    if args.uploads then return create_upload(bucket, key) end
    return complete_upload(bucket, key, entry, args)
  elseif args.partNumber then
    return upload_part(entry, args)
  elseif ngx.var.http_x_amz_copy_source then
    return copy_object(bucket, key)
  end
  return put_object(bucket, key, entry)
end

-- What the harness asks: how many objects of a target equal their source, byte for byte.
local function control(what, bucket)
  if what == "reset" then
    stored:flush_all()
    stored:flush_expired()
    return answer(200, "")
  end
  if what == "first" then
    return answer(200, '{"at": ' .. (stored:get("first") or 0) .. "}", "application/json")
  end
  local set = find_bucket(bucket)
  local equal, unequal, bytes = 0, 0, 0
  for _, key in ipairs(set.keys) do
    local record = recall(bucket, key)
    if record and record.is_equal then
      equal, bytes = equal + 1, bytes + record.size
    elseif record then
      unequal = unequal + 1
    end
  end
  return answer(200, string.format('{"equal": %d, "unequal": %d, "bytes": %d}', equal, unequal, bytes),
    "application/json")
end

function M.serve()
  local bucket, key = ngx.var.uri:match("^/([^/]*)/?(.*)$")
  if bucket == "" then
    return answer(200, "<?xml version=\"1.0\"?><ListAllMyBucketsResult><Buckets></Buckets></ListAllMyBucketsResult>")
  elseif bucket == "_bench" then
    local what, name = key:match("^(%a+)/?(.*)$")
    return control(what, name)
  end
  local set, kind = find_bucket(bucket)
  local method = ngx.req.get_method()
  if not set then
    return refuse(404, "NoSuchBucket")
  elseif key == "" then
    return serve_bucket(bucket, set, kind, method)
  elseif method == "GET" or method == "HEAD" then
    return read_object(set, kind, bucket, key)
  elseif kind == "source" then
    return refuse(403, "AccessDenied")
  end
  return write_object(bucket, key, set, method)
end

return M
