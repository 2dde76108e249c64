#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The root file systems of the images, from what was built and from installed Debian packages:
#
#   tools/image-root.sh BIN OUT EPOCH     makes OUT/tributary and OUT/redis; every file is dated EPOCH
#
# Each holds its programs, the shared libraries they need and no others, a user, names and certificates where they are
# used, the copyright files of the packages, and /usr/share/sbom/*.spdx.json: what is in it, by file and by package.
set -eu
export LC_ALL=C
bin=$1
out=$2
epoch=$3
root=$(cd "$(dirname "$0")/.." && pwd)
version=$(sed -n 's/.*TRIB_VERSION "\(.*\)".*/\1/p' "$root/common/version.h")
rm -rf "$out"

put() { # put ROOT FILE PLACE: a file of a package, its place beneath ROOT
	mkdir -p "$1$(dirname "$3")"
	cp -L "$2" "$1$3"
	printf '%s %s\n' "$3" "$2" >>"$1.files"
}

libraries() { # libraries ROOT PROGRAM..
	to=$1
	shift
	ldd "$@" 2>/dev/null | awk '/=> \// { print $3 } /^\t\// { print $1 }' | sort -u | while read -r lib; do
		case $lib in
		/lib64/*) place=/usr$lib ;;
		*) place=/usr/lib/${lib#*/lib/} ;;
		esac
		[ -e "$to$place" ] || put "$to" "$lib" "$place"
	done
}

base() { # base ROOT: what every root file system has
	mkdir -p "$1/etc" "$1/usr/bin" "$1/usr/lib" "$1/usr/lib64" "$1/tmp" "$1/proc" "$1/sys" "$1/dev"
	ln -s usr/bin "$1/bin"
	ln -s usr/lib "$1/lib"
	ln -s usr/lib64 "$1/lib64"
	printf 'root:x:0:0:root:/:/sbin/nologin\ntributary:x:65532:65532:tributary:/:/sbin/nologin\n' >"$1/etc/passwd"
	printf 'root:x:0:\ntributary:x:65532:\n' >"$1/etc/group"
	printf 'hosts: files dns\n' >"$1/etc/nsswitch.conf"
	: >"$1.files"
}

# The package a file belongs to. dpkg knows /lib/.. and /usr/lib/.. as two names of one file.
package_of() {
	for name in "$1" "$(readlink -f "$1")" "/usr$1" "${1#/usr}"; do
		found=$(dpkg-query -S "$name" 2>/dev/null | head -n 1 | sed 's/: .*//')
		if [ -n "$found" ]; then
			echo "$found"
			return
		fi
	done
}

sbom() { # sbom ROOT NAME
	to=$1
	list=$to/usr/share/sbom/$2.spdx.json
	mkdir -p "$to/usr/share/sbom"
	: >"$to.packages"
	while read -r place from; do
		package=$(package_of "$from")
		printf '%s %s %s\n' "${package:-tributary}" "$place" "$(sha256sum "$to$place" | cut -d ' ' -f 1)"
	done <"$to.files" | sort >"$to.owners"
	cut -d ' ' -f 1 "$to.owners" | sort -u | while read -r package; do
		if [ "$package" = tributary ]; then
			printf 'tributary %s - Apache-2.0\n' "$version"
			continue
		fi
		# shellcheck disable=SC2016 # dpkg's variables
		dpkg-query -W -f '${Package} ${Version} ${Architecture} NOASSERTION\n' "$package"
		doc=/usr/share/doc/${package%%:*}
		if [ -e "$doc/copyright" ]; then
			mkdir -p "$to$doc"
			cp -L "$doc/copyright" "$to$doc/copyright"
		fi
	done >"$to.packages"
	when=$(date -u -d "@$epoch" +%Y-%m-%dT%H:%M:%SZ)
	{
		printf '{"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT",\n'
		printf ' "name": "%s-%s",\n' "$2" "$version"
		printf ' "documentNamespace": "https://tributary.invalid/spdx/%s-%s-%s",\n' "$2" "$version" \
			"$(sha256sum "$to.owners" | cut -c 1-16)"
		printf ' "creationInfo": {"created": "%s", "creators": ["Tool: tools/image-root.sh"]},\n' "$when"
		printf ' "packages": ['
		awk '{
			id = $1; gsub(/[^A-Za-z0-9.]/, "-", id)
			printf "%s\n  {\"SPDXID\": \"SPDXRef-Package-%s\", \"name\": \"%s\", \"versionInfo\": \"%s\",", (NR > 1 ? "," : ""), id, $1, $2
			printf " \"downloadLocation\": \"NOASSERTION\", \"filesAnalyzed\": false, \"licenseDeclared\": \"%s\"", $4
			if ($3 != "-") {
				v = $2; gsub(/\+/, "%2B", v); gsub(/:/, "%3A", v)
				printf ", \"externalRefs\": [{\"referenceCategory\": \"PACKAGE-MANAGER\", \"referenceType\": \"purl\","
				printf " \"referenceLocator\": \"pkg:deb/debian/%s@%s?arch=%s&distro=bookworm\"}]", $1, v, $3
			}
			printf "}"
		}' "$to.packages"
		printf '],\n "files": ['
		awk '{
			printf "%s\n  {\"SPDXID\": \"SPDXRef-File-%d\", \"fileName\": \".%s\",", (NR > 1 ? "," : ""), NR, $2
			printf " \"checksums\": [{\"algorithm\": \"SHA256\", \"checksumValue\": \"%s\"}]}", $3
		}' "$to.owners"
		printf '],\n "relationships": ['
		awk '{
			id = $1; sub(/:.*/, "", id); gsub(/[^A-Za-z0-9.]/, "-", id)
			printf "%s\n  {\"spdxElementId\": \"SPDXRef-Package-%s\", \"relationshipType\": \"CONTAINS\",", (NR > 1 ? "," : ""), id
			printf " \"relatedSpdxElement\": \"SPDXRef-File-%d\"}", NR
		}' "$to.owners"
		awk '{
			id = $1; gsub(/[^A-Za-z0-9.]/, "-", id)
			printf ",\n  {\"spdxElementId\": \"SPDXRef-DOCUMENT\", \"relationshipType\": \"DESCRIBES\","
			printf " \"relatedSpdxElement\": \"SPDXRef-Package-%s\"}", id
		}' "$to.packages"
		printf ']}\n'
	} >"$list"
}

finish() { # finish ROOT NAME
	sbom "$1" "$2"
	rm -f "$1.files" "$1.owners" "$1.packages"
	find "$1" -exec touch -h -d "@$epoch" {} +
}

to=$out/tributary
base "$to"
mkdir -p "$to/run/tributary" "$to/var/lib/tributary"
for program in tributary tributary-orchestrator tributary-agent tributary-gateway tributary-aggregator; do
	put "$to" "$bin/$program" "/usr/bin/$program"
	strip "$to/usr/bin/$program"
	libraries "$to" "$bin/$program"
done
put "$to" /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt # webhooks
chmod -R u=rwX,go=rX "$to"
chmod 1777 "$to/tmp"
finish "$to" tributary

to=$out/redis
base "$to"
mkdir -p "$to/data" "$to/etc/redis"
put "$to" /usr/bin/redis-check-rdb /usr/bin/redis-server
put "$to" /usr/bin/redis-cli /usr/bin/redis-cli
put "$to" /usr/bin/busybox /usr/bin/busybox
for name in sh cat cp timeout; do
	ln -s busybox "$to/usr/bin/$name"
done
ln -s redis-server "$to/usr/bin/redis-sentinel"
libraries "$to" /usr/bin/redis-check-rdb /usr/bin/redis-cli
chmod -R u=rwX,go=rX "$to"
chmod 1777 "$to/tmp"
chmod 777 "$to/data"
finish "$to" tributary-redis
du -sk "$out/tributary" "$out/redis" | sed 's/^/image-root: KiB /'
