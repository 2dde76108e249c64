#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# make image: builds tributary:VERSION and tributary-redis:VERSION.
#
#   tools/image.sh [--again]     --again: a second time from nothing, and compares: they must be the same bytes
#
# With buildah (no daemon, no registry: the base is made of Debian packages by mmdebstrap) the images land in
# build/image/*.tar (OCI archives; `podman load -i`, `ctr -n k8s.io images import`, `kind load image-archive`). With
# Docker, where there is no buildah, in its own store. Where there is neither: says so, and that is no failure.
set -eu
export LC_ALL=C
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
version=$(sed -n 's/.*TRIB_VERSION "\(.*\)".*/\1/p' common/version.h)
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null || echo 0)}
export SOURCE_DATE_EPOCH
base=docker.io/library/debian:bookworm-slim
to=$root/build/image
limit=$((40 * 1000 * 1000))
again=
[ "${1-}" = --again ] && again=1

say() {
	echo "image: $*"
}

context() { # what git would commit, all of one date
	rm -rf "$to/context"
	mkdir -p "$to/context"
	git ls-files -co --exclude-standard | while read -r file; do
		[ -e "$file" ] && printf '%s\n' "$file"
	done | tar -c -T - | tar -x -C "$to/context"
	find "$to/context" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
}

with_docker() {
	for target in tributary redis; do
		name=tributary
		[ "$target" = tributary ] || name=tributary-redis
		docker build --target "$target" --build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" -t "$name:$version" \
			"$to/context"
	done
	say "in Docker: tributary:$version tributary-redis:$version"
}

if ! command -v buildah >/dev/null; then
	if command -v docker >/dev/null && docker info >/dev/null 2>&1; then
		context
		with_docker
		exit 0
	fi
	say "skipped: neither buildah nor a running Docker (apt-get install buildah mmdebstrap)"
	exit 0
fi
# A store of its own: nothing is left in the machine's, and what is here goes with make clean.
store() {
	buildah --root "$to/store" --runroot "$to/run" --storage-driver "$driver" "$@"
}
driver=${IMAGE_DRIVER:-overlay}
mkdir -p "$to"
if ! store images >/dev/null 2>&1; then
	driver=vfs
fi
if ! store images -q "$base" >/dev/null 2>&1; then
	if store pull -q "$base" >/dev/null 2>&1; then
		say "base: $base of its registry"
	elif command -v mmdebstrap >/dev/null; then
		say "base: Debian's packages, by mmdebstrap (a minute)"
		if [ ! -s "$to/base.tar" ]; then
			mmdebstrap --quiet --variant=minbase --include=ca-certificates bookworm "$to/base.tar.new" >/dev/null
			mv "$to/base.tar.new" "$to/base.tar"
		fi
		made=$(store from scratch)
		store add -q "$made" "$to/base.tar" / >/dev/null
		store commit -q "$made" "$base" >/dev/null
		store rm "$made" >/dev/null
	else
		say "skipped: no way to $base, and no mmdebstrap to make it"
		exit 0
	fi
fi

build() { # build TARGET NAME FLAGS..: prints the image's digest
	target=$1
	name=$2
	shift 2
	store bud -q --pull=never --isolation chroot --network host --format oci --timestamp "$SOURCE_DATE_EPOCH" \
		--build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" --target "$target" -t "localhost/$name:$version" "$@" \
		"$to/context" >"$to/$name.log" 2>&1 || {
		tail -n 30 "$to/$name.log" >&2
		return 1
	}
	rm -f "$to/$name-$version.tar"
	store push -q "localhost/$name:$version" "oci-archive:$to/$name-$version.tar:$name:$version"
	store inspect --type image --format '{{.FromImageDigest}}' "localhost/$name:$version"
}

context
pairs="tributary:tributary redis:tributary-redis"
[ -z "${CLIENT-}" ] || pairs="$pairs client:tributary-client"
for pair in $pairs; do
	name=${pair#*:}
	digest=$(build "${pair%%:*}" "$name" --layers)
	size=$(wc -c <"$to/$name-$version.tar")
	say "$name:$version $digest, $((size / 1000)) kB as an archive"
	[ "$size" -lt "$limit" ] || [ "$name" = tributary-client ] || {
		say "$name is larger than $((limit / 1000000)) MB" >&2
		exit 1
	}
	if [ -n "$again" ] && [ "$name" != tributary-client ]; then
		second=$(build "${pair%%:*}" "$name" --layers --no-cache)
		if [ "$digest" != "$second" ]; then
			say "built again it is another: $second" >&2
			exit 1
		fi
		say "$name built again from nothing: the same digest"
	fi
done
say "in build/image: tributary-$version.tar tributary-redis-$version.tar"
