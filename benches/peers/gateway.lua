-- A free call as this project's gateway does it, by somebody who writes Lua for nginx instead: the key is looked up by
-- its hash among 10 000, buyer and seller are limited, the body is signed, the answer is checked and wrapped, and a
-- line per call goes to a file, in batches, synced by nobody.
local ffi = require("ffi")
local json = require("cjson.safe")

-- OpenSSL is in nginx already.
ffi.cdef([[
unsigned char *SHA256(const unsigned char *data, size_t length, unsigned char *out);
const void *EVP_sha256(void);
unsigned char *HMAC(const void *hash, const void *key, int key_length, const unsigned char *data, size_t length,
                    unsigned char *out, unsigned int *out_length);
]])
local crypto = ffi.C
local digest = ffi.new("unsigned char[32]")
local digest_length = ffi.new("unsigned int[1]")

local function sha256(text)
    crypto.SHA256(text, #text, digest)
    return ffi.string(digest, 32)
end

local function hmac(key, text)
    crypto.HMAC(crypto.EVP_sha256(), key, #key, text, #text, digest, digest_length)
    return ffi.string(digest, 32)
end

local Gateway = {}
Gateway.__index = Gateway

local KEYS, LISTINGS, ROWS_A_WRITE = 10000, 1000, 64
local PER_SECOND = 100000000

function Gateway.new(ledger)
    local self = setmetatable({ ledger = ledger, rows = {}, count = 0, calls = 0, buyers = {}, listings = {} }, Gateway)
    for number = 1, KEYS do
        self.buyers[sha256(string.format("am_k_%038d", number))] = "buyer-" .. number
    end
    for number = 1, LISTINGS do
        local secret = sha256("secret " .. number)
        self.listings["listing-" .. number] = { secret = secret, price_micros = 0, fee_micros = 0 }
    end
    return self
end

local function refuse(status, code)
    ngx.status = status
    ngx.header["Content-Type"] = "application/json"
    ngx.print('{"success":false,"error":{"code":"', code, '"}}')
    return ngx.exit(status)
end

local function within_limit(who, second)
    return ngx.shared.rates:incr(who .. second, 1, 0, 2) <= PER_SECOND
end

function Gateway:admit()
    local header = ngx.var.http_authorization or ""
    local buyer = header:sub(1, 7) == "Bearer " and self.buyers[sha256(header:sub(8))]
    if not buyer then
        return refuse(401, "UNAUTHENTICATED")
    end
    local second = ngx.time()
    if not within_limit(buyer, second) then
        return refuse(429, "RATE_LIMITED")
    end
    local name = ngx.var.uri:match("([^/]+)$")
    local listing = self.listings[name]
    if not listing then
        return refuse(404, "NOT_FOUND")
    end
    if not within_limit(name, second) then
        return refuse(429, "RATE_LIMITED")
    end
    ngx.req.read_body()
    local body = ngx.req.get_body_data() or ""
    self.calls = self.calls + 1
    local id = string.format("gw_req_%08x%08x", second, self.calls)
    local signature = ngx.encode_base64(hmac(listing.secret, id .. "." .. second .. "." .. body))
    ngx.req.clear_header("Authorization")
    ngx.req.set_header("X-Request-Id", id)
    ngx.req.set_header("X-Timestamp", second)
    ngx.req.set_header("X-Signature", "v1," .. signature)
    ngx.ctx.call = { id = id, listing = listing, buyer = buyer, name = name }
end

function Gateway:wrap()
    local call = ngx.ctx.call
    if not call then
        return
    end
    local part, last = ngx.arg[1], ngx.arg[2]
    call.answer = call.answer and call.answer .. part or part
    if not last then
        ngx.arg[1] = nil
        return
    end
    local answer = call.answer
    if json.decode(answer) == nil then
        answer = json.encode(answer)
    end
    local price, fee = call.listing.price_micros, call.listing.fee_micros
    ngx.arg[1] = '{"success":true,"data":{"request_id":"' .. call.id .. '","billable":false,"charged_amount":{"amount_micros":'
        .. price .. ',"currency":"USD"},"fees":{"fee_rate":0.049,"fee_amount_micros":' .. fee
        .. ',"seller_receives_micros":' .. (price - fee) .. '},"seller_status_code":' .. ngx.status
        .. ',"seller_content_type":"' .. (ngx.header["Content-Type"] or "") .. '","seller_response":' .. answer .. "}}"
end

function Gateway:record()
    local call = ngx.ctx.call
    if not call then
        return
    end
    self.count = self.count + 1
    self.rows[self.count] = '{"id":"' .. call.id .. '","buyer":"' .. call.buyer .. '","listing":"' .. call.name
        .. '","status":' .. ngx.status .. "}\n"
    if self.count < ROWS_A_WRITE then
        return
    end
    self.file = self.file or io.open(self.ledger, "a")
    self.file:write(table.concat(self.rows, "", 1, self.count))
    self.file:flush()
    self.count = 0
end

return Gateway
