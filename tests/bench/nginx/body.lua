-- Request bodies: whole or in pieces, plain or in S3's own chunks ("aws-chunked").

local M = {}
local PIECE = 131072 -- bytes; stays in the processor's second-level cache
local IN_MEMORY = 65536 -- bytes; nginx's client_body_buffer_size

local function is_chunked()
  return (ngx.var.http_x_amz_content_sha256 or ""):sub(1, 9) == "STREAMING"
end

-- The object's bytes in this request, as its headers announce them.
function M.announced()
  return tonumber(ngx.var.http_x_amz_decoded_content_length or ngx.var.http_content_length or 0)
end

local function unchunk(data)
  local out, at = {}, 1
  while true do
    local first, last, size = data:find("^(%x+)[^\r\n]*\r\n", at)
    size = first and tonumber(size, 16) or 0
    if size == 0 then return table.concat(out) end
    out[#out + 1] = data:sub(last + 1, last + size)
    at = last + size + 3
  end
end

function M.whole()
  ngx.req.read_body()
  local data = ngx.req.get_body_data()
  if not data then
    local path = ngx.req.get_body_file()
    if not path then return "" end
    local file = assert(io.open(path, "rb"))
    data = file:read("*a")
    file:close()
  end
  return is_chunked() and unchunk(data) or data
end

local function plain_pieces(socket, consume)
  local left = tonumber(ngx.var.http_content_length)
  while left > 0 do
    local piece, problem = socket:receiveany(math.min(left, PIECE))
    if not piece then error("the body broke off: " .. tostring(problem)) end
    left = left - #piece
    consume(piece)
  end
end

local function chunked_pieces(socket, consume)
  while true do
    local line = assert(socket:receive("*l"))
    local left = tonumber(line:match("^%x+"), 16)
    if left == 0 then break end
    while left > 0 do
      local piece = assert(socket:receive(math.min(left, PIECE)))
      left = left - #piece
      consume(piece)
    end
    assert(socket:receive(2))
  end
  repeat -- trailers
    local line = socket:receive("*l")
  until not line or line == ""
end

-- Calls *consume* with each piece of the object's bytes.
function M.pieces(consume)
  local length = tonumber(ngx.var.http_content_length)
  if not length or length <= IN_MEMORY then
    local data = M.whole()
    if #data > 0 then consume(data) end
    return
  end
  local socket = assert(ngx.req.socket())
  local read = is_chunked() and chunked_pieces or plain_pieces
  read(socket, consume)
end

return M
