-- POST /analytics: many users, the current time, clicks and impressions. Rendered before the measurement, so that wrk
-- itself costs the same for every server. The line BENCH is read by bench/run.
local requests, at, thread_number = {}, 0, 0
local RENDERED = 8192

function setup(thread)
  thread:set("number", thread_number)
  thread_number = thread_number + 1
end

function init(args)
  math.randomseed(number + 1)
  local now = string.format("%d000", os.time())
  for i = 1, RENDERED do
    local kind = math.random(2) == 1 and "click" or "impression"
    local path = "/analytics?timestamp=" .. now .. "&user=user-" .. math.random(0, 99999) .. "&" .. kind
    requests[i] = wrk.format("POST", path)
  end
end

function request()
  at = at % RENDERED + 1
  return requests[at]
end

function done(summary, latency, requests)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  io.write(string.format("BENCH %.0f %d %d %d %d\n", summary.requests * 1e6 / summary.duration, summary.requests, failed,
    latency:percentile(50), latency:percentile(99)))
end
