-- POST of messages of 1 KiB to the topics publish-0 to publish-63; with BATCH, so many in a request. Rendered before the
-- measurement, as in post.lua. The line BENCH counts messages.
local requests, at, threads = {}, 0, {}
local BATCH = tonumber(os.getenv("BATCH") or "1")
local RENDERED = BATCH > 1 and 256 or 8192

function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init(args)
  local message = string.rep("x", 1024)
  local batch = '[' .. string.rep('{"body":"' .. message .. '"},', BATCH - 1) .. '{"body":"' .. message .. '"}]'
  for i = 1, RENDERED do
    local path = "/v1/topics/publish-" .. (i + number * 32) % 64 .. "/messages"
    if BATCH > 1 then
      requests[i] = wrk.format("POST", path .. ":batch", { ["Content-Type"] = "application/json" }, batch)
    else
      requests[i] = wrk.format("POST", path, { ["Content-Type"] = "text/plain" }, message)
    end
  end
end

function request()
  at = at % RENDERED + 1
  return requests[at]
end

-- 207: some messages of a batch were refused. Without batches wrk need not read the responses.
partial = 0
if BATCH > 1 then
  function response(status)
    if status == 207 then partial = partial + 1 end
  end
end

function done(summary, latency, requests)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  for _, thread in ipairs(threads) do failed = failed + thread:get("partial") end
  io.write(string.format("BENCH %.0f %d %d %d %d\n", summary.requests * BATCH * 1e6 / summary.duration,
    summary.requests * BATCH, failed, latency:percentile(50), latency:percentile(99)))
end
