# Shared by the benchmarks that drive the real binaries: the federation helpers of the end-to-end tests, and printing. Sourced, not run.
. "$(dirname "${BASH_SOURCE[0]}")/../e2e/lib.sh"

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
