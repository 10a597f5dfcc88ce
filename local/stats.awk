# Reads Prometheus's text format at two instants (files *.1 and *.2) and prints a line of stats.sh.

FNR == 1 { instant = FILENAME ~ /\.2$/ ? 2 : 1 }

/^#/ || NF < 2 { next }

{
	family = $1
	sub(/\{.*/, "", family)
	value = $NF
}

# What counts is the growth between the instants.
family == "http_requests_total" && /route="\/post/ { grow("reads", value) }
family == "http_request_duration_seconds_bucket" && /route="\/post/ { bucket("duration", value) }
family == "cache_propagation_seconds_bucket" { bucket("propagation", value) }
family == "apisix_http_status" && /route="post/ { grow("gateway_reads", value) }
family == "apisix_http_latency_bucket" && /type="request"/ && /route="post/ { bucket("gateway", value) }
family == "writer_writes_total" && /outcome="ok"/ { grow("writes", value) }
family == "writer_import_lines_total" && /outcome="(created|replaced)"/ { grow("writes", value) }

# The rest is as it is.
instant == 2 { gauge[family] = value }

function grow(name, value) {
	growth[name] += instant == 2 ? value : -value
}

# bucket adds to a bucket of a histogram, which are in ascending order in each series.
function bucket(name, value, bound) {
	match($0, /le="[^"]*"/)
	bound = substr($0, RSTART + 4, RLENGTH - 5)
	if (!((name, bound) in counts)) bounds[name, ++n[name]] = bound
	counts[name, bound] += instant == 2 ? value : -value
}

# p99 interpolates in the bucket that has it, as Prometheus does; "-" when nothing was counted.
function p99(name, unit, i, bound, low, below, total, want) {
	total = counts[name, "+Inf"]
	if (total <= 0) return "-"
	want = 0.99 * total
	for (i = 1; i <= n[name]; i++) {
		bound = bounds[name, i]
		if (counts[name, bound] >= want) {
			if (bound == "+Inf") return sprintf(">%.3g ms", low * unit)
			return sprintf("%.3g ms", (low + (bound - low) * (want - below) / (counts[name, bound] - below)) * unit)
		}
		low = bound
		below = counts[name, bound]
	}
}

function rate(name) { return sprintf("%.0f", growth[name] / seconds) }

function mebibytes(bytes) { return sprintf("%.1f MiB", bytes / 1048576) }

END {
	if (role == "summary") {
		printf "gateway %s reads/s, p99 %s; writer %s writes/s; ", rate("gateway_reads"), p99("gateway", 1), rate("writes")
		exit
	}
	if (!("cache_ready" in gauge)) {
		printf row, name, "away", "-", "-", "-", "-", "-", "-", "-", "-"
		exit
	}
	state = !gauge["cache_ready"] ? "loading" : gauge["cache_synced"] && gauge["cache_subscribed"] ? "ready" : "degraded"
	printf row, name, state, rate("reads"), p99("duration", 1000), p99("propagation", 1000), sprintf("%d", gauge["cache_entries"]), \
		mebibytes(gauge["cache_bytes"]), mebibytes(gauge["process_resident_memory_bytes"]), sprintf("%d", gauge["cache_applied_version"]), \
		sprintf("%d", gauge["cache_lag_versions"])
}
