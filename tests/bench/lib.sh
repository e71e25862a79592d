# Shared by the benchmarks that drive the real binaries: the federation helpers of the end-to-end tests, and printing. Sourced, not run.
. "$(dirname "${BASH_SOURCE[0]}")/../e2e/lib.sh"

# Cleaning up goes on when nobody reads the output any more (`| head`), and takes along what lies outside of the work folder.
elsewhere=()
trap '' PIPE
trap 'code=$?; set +e; [ ${#elsewhere[@]} -eq 0 ] || rm -rf "${elsewhere[@]}"; (exit $code); finish' EXIT

figure() { # bench metric value unit [limit-name limit-value ratio]
	if [ -n "${HANSA_BENCH_JSON:-}" ]; then
		if [ $# -gt 4 ]; then
			jq -c -n --arg b "$1" --arg m "$2" --argjson v "$3" --arg u "$4" --arg l "$5" --argjson lv "$6" --argjson r "$7" \
				'{bench: $b, metric: $m, value: $v, unit: $u, limit: $l, limit_value: $lv, ratio: $r}'
		else
			jq -c -n --arg b "$1" --arg m "$2" --argjson v "$3" --arg u "$4" '{bench: $b, metric: $m, value: $v, unit: $u}'
		fi
	else
		printf '%-14s %-28s %12s %-8s' "$1" "$2" "$3" "$4"
		[ $# -le 4 ] || printf ' (%s: %s; ratio %s)' "$5" "$6" "$7"
		echo
	fi
}
peak_mb() { awk '/VmHWM/ { printf "%.1f", $2 / 1000 }' "/proc/$1/status"; }

# ---- rounds of many plants: hansa-swarm and what it is held against ----

# Sizes can be made smaller by the environment, to try a script: HANSA_BENCH_PLANTS, HANSA_BENCH_PARAMETERS, HANSA_BENCH_ROUNDS, HANSA_BENCH_SECONDS.
large=${HANSA_BENCH_PARAMETERS:-11700000} # 46.8 MB of float32
small=${HANSA_BENCH_PARAMETERS:-25600}    # 100 KB

calc() { jq -n "$1"; }
rounded() { jq -n "def r(v; n): (v * pow(10; n) | round) / pow(10; n); r($1; ${2:-2})"; }
median_of() { jq -s 'sort | if length == 0 then null elif length % 2 == 1 then .[length / 2 | floor] else (.[length / 2 - 1] + .[length / 2]) / 2 end'; }
now() { date +%s.%N; }
cpu_seconds() { # of a process and its threads, so far
	awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); printf "%.2f", ($12 + $13) / hz }' "/proc/$1/stat"
}
rss_mb() { awk '/VmRSS/ { printf "%.1f", $2 / 1000 }' "/proc/$1/status"; }
files_of() { ls "/proc/$1/fd" | wc -l; }
alive() { [ -e "/proc/$1/stat" ] && ! grep -q ') Z ' "/proc/$1/stat"; }

# await SECONDS PID WHAT: the end of a process that this script started; its exit code must be 0, and the coordinator must live.
await() {
	local seconds=$1 pid=$2 what=$3 until
	until=$(($(date +%s) + seconds))
	while alive "$pid"; do
		alive "$coordinator_pid" || fail "$what: the coordinator died"
		[ "$(date +%s)" -lt "$until" ] || fail "$what: not over after $seconds s"
		sleep 0.05
	done
	wait "$pid" || fail "$what: ended with an error"
}

# bench_model FILE PARAMETERS
bench_model() { hansa-swarm model --parameters "$2" -o "$1" >/dev/null; }
# bench_job FILE SOURCE ROUNDS QUORUM KEY...: a job without training.
bench_job() {
	local file=$1 source=$2 rounds=$3 quorum=$4
	shift 4
	printf '%s\n' 'name: bench' "source: $source" "rounds: $rounds" "quorum: $quorum" 'deadline: 10m' "$@" |
		tac | awk -F: '!seen[$1]++' | tac >"$file"
}
# plant_list PREFIX N: as a list in YAML.
plant_list() { seq -f "$1-%05.0f" -s ', ' "$2" | sed 's/.*/[&]/'; }
# start_swarm FEDERATION PREFIX N OPTION...: in the background, connected when this returns; sets swarm_pid. Report: PREFIX.report
start_swarm() {
	local dir=$1 prefix=$2 n=$3
	shift 3
	: >"$prefix.swarm.log"
	hansa-swarm run --dir "$dir" --state "swarm-$prefix" --prefix "$prefix" --plants "$n" --json "$@" >"$prefix.report" 2>"$prefix.swarm.log" &
	swarm_pid=$!
	pids+=("$swarm_pid")
	wait_for $((60 + n / 20)) swarm_stands || fail "the swarm $prefix did not connect: $(tail -n 1 "$prefix.swarm.log")"
	alive "$swarm_pid" || fail "the swarm $prefix died: $(tail -n 1 "$prefix.swarm.log")"
}
swarm_stands() { grep -q ' connected after ' "$prefix.swarm.log" || ! alive "$swarm_pid"; }
enrol_swarm() { # FEDERATION PREFIX N
	hansa-swarm enrol --dir "$1" --state "swarm-$2" --prefix "$2" --plants "$3" --threads 8 2>/dev/null
}
end_swarm() {
	kill -TERM "$1"
	await 60 "$1" "ending a swarm"
}

# round_seconds FEDERATION JOB: one line a round from the second on: seconds from the end of the round before to its own end.
jq_ms='def ms: (.[0:19] + "Z" | fromdate) * 1000 + (.[20:23] | tonumber);'
round_seconds() {
	hansactl --dir "$1" rounds "$2" --json | jq "$jq_ms"' [sort_by(.round)[] | .closed | ms] | [.[1:], .[:-1]] | transpose | .[] | (.[0] - .[1]) / 1000'
}
round_bytes() { hansactl --dir "$1" rounds "$2" --json | jq '[.[] | .bytes_up + .bytes_down] | sort | .[length / 2 | floor]'; }
all_counted() { # FEDERATION JOB PLANTS: every round has every update
	local got
	got=$(hansactl --dir "$1" rounds "$2" --json | jq -c '[.[] | .contributions | length] | unique')
	[ "$got" = "[$3]" ] || fail "job $2: updates per round $got, expected $3"
}
