-- GET /analytics of the current hour.
function init(args)
  wrk.path = "/analytics?timestamp=" .. string.format("%d000", os.time())
end

function done(summary, latency, requests)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  io.write(string.format("BENCH %.0f %d %d %d %d\n", summary.requests * 1e6 / summary.duration, summary.requests, failed,
    latency:percentile(50), latency:percentile(99)))
end
