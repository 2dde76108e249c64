#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Starts Redis or its Sentinel in a pod of the StatefulSet: as what, the Sentinels say, else this pod's own memory of
# what its Sentinel knew last, else (the very first start) pod 0 is the master. An old master that comes back alone takes
# no write before it has a replica (min-replicas-to-write), and its Sentinel makes it a replica of the new one.
set -eu
service=${REDIS_SERVICE:-tributary-redis-pods.tributary.svc}
dir=${REDIS_DATA:-/data}
config=${REDIS_CONFIG:-/etc/redis/redis.conf}
me=$POD.$service
known=$dir/sentinel.conf

ask() { # the Sentinels, one after another
	for i in 0 1 2; do
		timeout 2 redis-cli -h "${POD%-*}-$i.$service" -p 26379 sentinel get-master-addr-by-name tributary 2>/dev/null |
			while read -r host; do
				case $host in
				*."$service")
					echo "$host"
					break
					;;
				esac
			done
	done
}

remembered() {
	[ -s "$known" ] || return 0
	while read -r a b c host rest; do
		if [ "$a $b $c" = "sentinel monitor tributary" ] && [ -n "$rest" ]; then
			echo "$host"
		fi
	done <"$known"
}

first() { # the first word of what a function says
	for word in $("$1"); do
		echo "$word"
		return
	done
}

master=$(first ask)
[ -n "$master" ] || master=$(first remembered)
[ -n "$master" ] || master=${POD%-*}-0.$service
echo "start: $1 on $me, master $master"
# shellcheck disable=SC2086 # a list of words
case $1 in
redis)
	set -- --replica-announce-ip "$me" --min-replicas-to-write 1 --min-replicas-max-lag 5 --repl-timeout 10 \
		--repl-ping-replica-period 1 --repl-diskless-sync yes --repl-diskless-sync-delay 0
	if [ "$master" != "$me" ]; then
		set -- "$@" --replicaof "$master" 6379
	fi
	exec redis-server "$config" --dir "$dir" --bind ${REDIS_BIND:-* -::*} "$@"
	;;
sentinel)
	if [ ! -s "$known" ]; then
		cat >"$known.new" <<-END
			port 26379
			dir $dir
			bind ${REDIS_BIND:-* -::*}
			protected-mode no
			sentinel resolve-hostnames yes
			sentinel announce-hostnames yes
			sentinel announce-ip $me
			sentinel monitor tributary $master 6379 2
			sentinel down-after-milliseconds tributary 2000
			sentinel failover-timeout tributary 6000
			sentinel parallel-syncs tributary 2
		END
		cp "$known.new" "$known"
	fi
	exec redis-server "$known" --sentinel
	;;
esac
