-- Requests the ids of a file in order, each thread from a different offset, with BENCH_DEPTH requests in
-- flight on each connection. Requests are formatted once, before the measurement.
local threads = 0
function setup(thread)
	thread:set("number", threads)
	threads = threads + 1
end

function init()
	local depth, path = tonumber(os.getenv("BENCH_DEPTH")), os.getenv("BENCH_PATH")
	local batches, batch = {}, {}
	for id in io.lines(os.getenv("BENCH_IDS")) do
		batch[#batch + 1] = wrk.format("GET", path .. "?id=" .. id)
		if #batch == depth then
			batches[#batches + 1] = table.concat(batch)
			batch = {}
		end
	end
	local at = number * 1009
	request = function()
		at = at % #batches + 1
		return batches[at]
	end
end

-- wrk's own latencies are not used: it adds values that it assumes to be missing, and then its percentiles
-- are sometimes 0, because it searches for a rank among fewer values than it has counted.
function done(summary)
	local e = summary.errors
	io.write(string.format('\nRESULT {"requests":%d,"seconds":%f,"bytes":%d,"socket":%d,"status":%d}\n',
		summary.requests, summary.duration / 1e6, summary.bytes, e.connect + e.read + e.write + e.timeout, e.status))
end
