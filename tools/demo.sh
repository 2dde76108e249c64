#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The whole story in one command: installs what is missing, builds, starts the service on ports of
# its own in a directory of its own, lets 20 client processes train a network, and cleans up.
#
#   tools/demo.sh [--keep]       --keep: leave the service running until Ctrl-C
#
# Last line: "demo: accuracy 0.9xx central 0.9xx rounds R seconds S". Exit code 0 when the accuracy
# is 0.93 or better. The model is left in ./tributary-demo/model.safetensors.
set -eu

keep=
case ${1-} in
'') ;;
--keep) keep=1 ;;
*)
	echo "usage: tools/demo.sh [--keep]" >&2
	exit 2
	;;
esac
start=$(date +%s)
here=$(pwd)
root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-/usr/bin/python3}
out=$here/tributary-demo
work=
up_pid=
driver_pid=

say() {
	echo "demo: $*"
}

# shellcheck disable=SC2317 # called by trap
cleanup() {
	code=$?
	trap - EXIT
	trap '' INT TERM HUP
	if [ -n "$driver_pid" ] && kill -0 "$driver_pid" 2>/dev/null; then
		kill -TERM "$driver_pid" 2>/dev/null || true
		wait "$driver_pid" 2>/dev/null || true
	fi
	if [ -n "$up_pid" ] && kill -0 "$up_pid" 2>/dev/null; then
		kill -TERM "$up_pid" 2>/dev/null || true
		wait "$up_pid" 2>/dev/null || true
	fi
	if [ -n "$work" ]; then
		if [ "$code" != 0 ] && [ "$code" -lt 128 ]; then
			mkdir -p "$out/failed"
			cp -r "$work"/up.log "$work"/data/logs "$work"/client-*.log "$out/failed" \
				2>/dev/null || true
			say "failed; logs are in $out/failed" >&2
			grep -hE '"l":"(warn|err)"' "$out"/failed/logs/*.log 2>/dev/null |
				tail -n 3 | cut -c 1-200 >&2 || true
		fi
		rm -rf "$work"
	fi
	exit "$code"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

field() { # field NAME: a value of endpoints.json
	"$python" -c 'import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]])' \
		"$work/data/endpoints.json" "$1"
}

wait_ready() {
	turns=0
	until grep -q '"ready":true' "$work/data/endpoints.json" 2>/dev/null; do
		turns=$((turns + 1))
		if [ "$turns" -gt 300 ] || ! kill -0 "$up_pid" 2>/dev/null; then
			say "the service does not start:" >&2
			cat "$work/up.log" >&2
			exit 1
		fi
		sleep 0.1
	done
}

"$root/tools/install-deps.sh" build demo
say "building"
jobs=$(nproc)
[ "$jobs" -le 8 ] || jobs=8
if [ -n "${TRIBUTARY_DEMO_BIN-}" ]; then
	bin=$TRIBUTARY_DEMO_BIN
else
	"${MAKE:-make}" -s -C "$root" -j"$jobs" all
	bin=$root/build/bin
fi

rm -rf "$out/failed" # of a run before
free=$(df -Pk "${TMPDIR:-/tmp}" | awk 'NR == 2 { print int($4 / 1024) }')
[ "${free:-64}" -ge 64 ] || say "only $free MiB free in ${TMPDIR:-/tmp}: that may not do" >&2
work=$(mktemp -d "${TMPDIR:-/tmp}/tributary-demo.XXXXXX")
"$bin/tributary" up --dir "$work/data" --api 127.0.0.1:0 --data 127.0.0.1:0 --die-with-parent \
	>"$work/up.log" 2>&1 &
up_pid=$!
wait_ready
api=$(field api)
say "service is up: api $api, data $(field data)"

result=0
"$python" "$root/client/examples/digits/driver.py" --api "$api" --work "$work" \
	--model "$out/model.safetensors" --result "$work/result.json" --die-with-parent &
driver_pid=$!
wait "$driver_pid" || result=$?
driver_pid=
[ "$result" -lt 128 ] || exit "$result" # ended by a signal
numbers=$("$python" -c '
import json, sys
r = json.load(open(sys.argv[1]))
print("accuracy %.4f central %.4f rounds %d" % (r["accuracy"], r["central"], r["rounds"]))
' "$work/result.json" 2>/dev/null) || exit 1

cat <<EOF

The model is in $out/model.safetensors. To look around:
  tools/demo.sh --keep                       keep the service up afterwards
  build/bin/tributary up                     the service, in ./tributary-data
  build/bin/tributary get                    jobs; also: rounds, watch, model, submit, --help
  client/examples/digits/client.py           what a client is made of
EOF
if [ -n "$keep" ]; then
	say "still up; Ctrl-C ends it. Try:"
	echo "  TRIBUTARY_API=$api $bin/tributary rounds digits"
	wait "$up_pid" || true
fi
if [ "$result" != 0 ]; then
	say "below 0.93, or a client failed" >&2
fi
say "stopping the service"
kill -TERM "$up_pid" 2>/dev/null || true
wait "$up_pid" || { say "the service did not end well" >&2; result=1; }
up_pid=
rm -rf "$work"
work=
echo "demo: $numbers seconds $(($(date +%s) - start))"
exit "$result"
