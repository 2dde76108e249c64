#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian 12 packages that are missing, nothing else.
#
#   tools/install-deps.sh [build] [demo] [test] [bench]     (the first three when none is named)
#   tools/install-deps.sh --check ...               only tells what is missing (exit code 1)
#
# redis-server is needed as a program only: installed here, its service is neither started nor enabled
# for the next boot; one that was there before is left alone.
set -eu

BUILD="build-essential pkg-config clang-14 bpftool libbpf-dev libdpdk-dev libevent-dev libhiredis-dev
	libjansson-dev libjwt-dev libssl-dev libisal-dev libxxhash-dev libseccomp-dev libjemalloc-dev
	libcurl4-openssl-dev"
DEMO="redis-server python3 python3-numpy python3-sklearn"
TEST="redis-server redis-tools python3 python3-numpy python3-pytest python3-jsonschema libcmocka-dev clang-format-14
	shellcheck curl openssl strace git iproute2 yamllint python3-yaml python3-pip"
BENCH="redis-server libgrpc++-dev libprotobuf-dev protobuf-compiler protobuf-compiler-grpc python3 python3-numpy
	python3-venv python3-grpcio python3-protobuf python3-aiohttp python3-uvloop"

say() {
	echo "install-deps: $*" >&2
}

check_only=
wanted=
for word in "$@"; do
	case $word in
	--check) check_only=1 ;;
	build) wanted="$wanted $BUILD" ;;
	demo) wanted="$wanted $DEMO" ;;
	test) wanted="$wanted $TEST" ;;
	bench) wanted="$wanted $BENCH" ;;
	*)
		say "unknown word '$word' (build, demo, test, bench, --check)"
		exit 2
		;;
	esac
done
[ -n "$wanted" ] || wanted="$BUILD $DEMO $TEST"

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
	# shellcheck disable=SC2086
	say "this is no Debian; needed are the likes of:" $wanted
	exit 1
fi
missing=
for package in $wanted; do
	case " $missing " in *" $package "*) continue ;; esac
	status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$status" = installed ] || missing="$missing $package"
done
if [ -z "$missing" ]; then
	exit 0
fi
if [ -n "$check_only" ]; then
	say "missing:$missing"
	exit 1
fi

as_root=
if [ "$(id -u)" != 0 ]; then
	if command -v sudo >/dev/null && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
		as_root="sudo"
	else
		say "not permitted to install packages (neither root nor sudo). Missing:$missing"
		say "ask for: apt-get install --no-install-recommends$missing"
		exit 1
	fi
fi

log=$(mktemp)
policy=/usr/sbin/policy-rc.d
mark="# by Tributary's tools/install-deps.sh, while it installs"
own_policy=
own_redis=
reporter=
# shellcheck disable=SC2317 # called by trap
finish() {
	[ -z "$reporter" ] || kill "$reporter" 2>/dev/null || true
	if [ -n "$own_redis" ]; then # a program from now on, no service after the next boot
		$as_root update-rc.d redis-server disable >/dev/null 2>&1 || true
		$as_root deb-systemd-helper disable redis-server.service >/dev/null 2>&1 || true
	fi
	[ -z "$own_policy" ] || $as_root rm -f "$policy"
	rm -f "$log"
}
trap finish EXIT
trap 'exit 130' INT TERM HUP

# A line every five seconds about how far apt is, as its output tells.
report() {
	turn=0
	while sleep 1 && kill -0 $$ 2>/dev/null; do
		turn=$((turn + 1))
		[ $((turn % 5)) = 0 ] || continue
		all=$(sed -n 's/.* upgraded, \([0-9]*\) newly installed.*/\1/p' "$log")
		if [ -n "$all" ]; then
			say "$turn s: of $all packages $(grep -c '^Get:' "$log") fetched," \
				"$(grep -c '^Unpacking ' "$log") unpacked," \
				"$(grep -c '^Setting up ' "$log") set up"
		else
			say "$turn s: $(tail -n 1 "$log")"
		fi
	done
}

quietly() { # apt stays in the foreground: Ctrl-C reaches it, and it ends in a sound state
	what=$1
	shift
	say "$what"
	: >"$log"
	report &
	reporter=$!
	result=0
	"$@" >"$log" 2>&1 </dev/null || result=$?
	kill "$reporter" 2>/dev/null || true
	wait "$reporter" 2>/dev/null || true
	reporter=
	if [ "$result" != 0 ]; then
		say "failed: $*"
		tail -n 20 "$log" >&2
		return 1
	fi
}

say "missing:$missing"
case " $missing " in *" redis-server "*) own_redis=1 ;; esac
# No service is started by what is installed here.
if [ ! -e "$policy" ] || grep -qF "$mark" "$policy"; then # else whoever made it has decided
	printf '#!/bin/sh\n%s\nexit 101\n' "$mark" | $as_root tee "$policy" >/dev/null
	$as_root chmod 755 "$policy"
	own_policy=1
fi
apt="$as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -q -y -o DPkg::Lock::Timeout=120"
refresh() {
	# shellcheck disable=SC2086
	quietly "refreshing package lists" $apt update
}
refreshed=
if ! ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1; then
	refresh
	refreshed=1
fi
# shellcheck disable=SC2086 # lists of words
if ! quietly "installing (a minute or two; Ctrl-C waits for dpkg)" $apt install --no-install-recommends $missing; then
	[ -z "$refreshed" ] || exit 1
	refresh
	quietly "installing, once more" $apt install --no-install-recommends $missing
fi
say "done"
