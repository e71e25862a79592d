# Shared by the end-to-end tests: real binaries, a fresh CA, port 0, a folder of their own. Sourced, not run.
set -euo pipefail

bin=${HANSA_BIN:?HANSA_BIN must name the folder with the programs}
PATH=$bin:$PATH
work=$(mktemp -d "${TMPDIR:-/tmp}/hansa-e2e.XXXXXX")
cd "$work"
pids=()

clean_up() { :; } # a test may have more to undo
finish() {
	local code=$?
	for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
	for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null || true; done
	if [ $code -ne 0 ]; then
		echo "--- failed; logs:"
		tail -n 40 "$work"/*.log 2>/dev/null || true
	fi
	clean_up
	[ -n "${HANSA_KEEP:-}" ] || rm -rf "$work"
	exit $code
}
trap finish EXIT

fail() { echo "FAILED: $*"; exit 1; }
check() { # description, command...
	local what=$1
	shift
	"$@" >/dev/null || fail "$what: $*"
	echo "ok: $what"
}
equal() { # description, got, expected
	[ "$2" = "$3" ] || fail "$1: got '$2', expected '$3'"
	echo "ok: $1"
}
wait_for() { # seconds, command...
	local tries=$(($1 * 20))
	shift
	for _ in $(seq $tries); do
		"$@" >/dev/null 2>&1 && return 0
		sleep 0.05
	done
	return 1
}

model() { # classes
	cat <<END
name: tiny
input: [1, 256]
classes: [$1]
layers:
  - {op: conv1d, name: conv1, out: 8, kernel: 32, stride: 8, padding: 12}
  - {op: batchnorm1d, name: bn1}
  - {op: relu}
  - {op: maxpool1d, kernel: 2}
  - {op: conv1d, name: conv2, out: 16, kernel: 3, padding: 1}
  - {op: batchnorm1d, name: bn2}
  - {op: relu}
  - {op: adaptiveavgpool1d, out: 4}
  - {op: flatten}
  - {op: linear, name: head, out: outputs}
END
}

# Data, lab and source model: made once per test.
make_source() {
	hansa data bearing data --seed 3 --seconds 1 --plants 3 >/dev/null
	classes='normal, B021, IR021, OR021'
	model "$classes" >model.yaml
	pretrain source.safetensors 2 >pretrain.json
}
pretrain() { # FILE, epochs: of the model of model.yaml
	cat >lab.yaml <<END
model: model.yaml
seed: 1
data: {path: data/load0, window: 256, classes: [$classes]}
train: {epochs: $2, batch: 16, optimizer: adam, lr: 0.002}
END
	hansa pretrain --config lab.yaml -o "$1" --json
}
# wide_source FILE UNITS: like source.safetensors, with 340 bytes more for each unit of a further layer. After make_source.
wide_source() {
	model "$classes" | sed "s/adaptiveavgpool1d, out: 4/adaptiveavgpool1d, out: 5/; s/^  - {op: linear, name: head/  - {op: linear, name: wide, out: $2}\n  - {op: relu}\n&/" >model.yaml
	pretrain "$1" 1 >/dev/null
}

# start_coordinator DIR: makes the federation when it is not there; sets coordinator_pid. Ports are kept over restarts.
make_federation() {
	hansad init "$1" --federation test.example --host 127.0.0.1 --listen 127.0.0.1:0 --enrol-listen 127.0.0.1:0 >"$1.init.log"
}
start_coordinator() {
	local dir=$1
	hansad serve --config "$dir/hansad.yaml" 2>>"$dir.log" &
	coordinator_pid=$!
	pids+=("$coordinator_pid")
	serving_lines=$((${serving_lines:-0} + 1))
	wait_for 30 has_lines "$dir.log" ' serving ' "$serving_lines" || fail "the coordinator does not serve"
	local line
	line=$(grep ' serving ' "$dir.log" | tail -1)
	main_address=$(sed -E 's/.*main=([^ ]+).*/\1/' <<<"$line")
	enrol_address=$(sed -E 's/.*enrol=([^ ]+).*/\1/' <<<"$line")
	# A restart must be found at the same place.
	sed -i -E "s|^#?listen:.*|listen: $main_address|; s|^#?enrol_listen:.*|enrol_listen: $enrol_address|" "$dir/hansad.yaml"
}
# set_key FEDERATION KEY VALUE: of the coordinator's settings, which is started anew with them.
set_key() {
	sed -i -E "s|^#?$2:.*|$2: $3|" "$1/hansad.yaml"
	stop_coordinator
	start_coordinator "$1"
}
has_lines() { [ "$(grep -c -- "$2" "$1" 2>/dev/null)" -ge "$3" ]; }
stop_coordinator() {
	kill -TERM "$coordinator_pid"
	wait "$coordinator_pid" || fail "the coordinator did not end cleanly"
}

# add_plant FEDERATION NAME LOAD: invite, enrol, configure.
add_plant() {
	local dir=$1 name=$2 load=$3
	mkdir -p "$dir-$name"
	hansa enroll "$(hansactl --dir "$dir" invite "$name" 2>/dev/null)" --dir "$dir-$name/identity" >/dev/null
	cat >"$dir-$name/plant.yaml" <<END
seed: 1
data: {path: ../data/$load, window: 256, labels: 12, classes: [$classes]}
END
}
# start_plant FEDERATION NAME: in the background, one job; sets plant_pid.
start_plant() {
	hansa join --config "$1-$2/plant.yaml" --once --json >>"$1-$2.json" 2>>"$1-$2.log" &
	plant_pid=$!
	pids+=("$plant_pid")
}

# start_proxy NAME KEY=VALUE...: a bad line to the coordinator; sets proxy_pid; totals in NAME.proxy. through FEDERATION PLANT NAME: the plant uses it.
start_proxy() {
	local name=$1
	shift
	e2e-proxy-tool "$main_address" "$@" >"$name.proxy" &
	proxy_pid=$!
	pids+=("$proxy_pid")
	wait_for 10 grep -q '^listening ' "$name.proxy" || fail "no proxy"
}
through() { sed -i -E "s|^address:.*|address: 127.0.0.1:$(sed -n 's/^listening //p' "$3.proxy")|" "$1-$2/identity/peer.yaml"; }
relayed() { # NAME up|down|cuts: so far, in whole MiB or when something happened
	local n
	n=$(tail -1 "$1.proxy" | sed -nE "s/.* $2=([0-9]+).*/\\1/p")
	echo "${n:-0}"
}
has_relayed() { [ "$(relayed "$1" "$2")" -ge "$3" ]; }

# job FILE EXTRA...: a job description.
job_file() {
	local file=$1
	shift
	{
		cat <<END # later keys replace earlier ones
name: e2e
source: source.safetensors
rounds: 3
quorum: 2
deadline: 2m
seed: 5
train: {epochs: 2, batch: 8, optimizer: sgd, lr: 0.01, momentum: 0.9}
END
		printf '%s\n' "$@"
	} | tac | awk -F: '!/^[a-z_]+:/ || !seen[$1]++' | tac >"$file"
}
start_job() { hansactl --dir "$1" job start "$2" --json | jq -r .job; }
model_digest() { hansactl --dir "$1" job show "$2" --json | jq -r .model_sha256; }
