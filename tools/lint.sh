#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# make lint: format, layers, doors, banned calls, lengths. No compilation. Prints what is wrong; exit 1 if any.
cd "$(dirname "$0")/.." || exit 1
bad=0
fail() { echo "lint: $*"; bad=1; }
# A checkout that belongs to somebody else, or none at all: what lies there.
files=$(git ls-files -co --exclude-standard '*.c' '*.h' 2>/dev/null)
[ -n "$files" ] || files=$(find . -path ./build -prune -o -name '*.[ch]' -print | sed 's|^\./||' | sort)
[ -n "$files" ] || fail "no sources found"
if command -v clang-format-14 >/dev/null 2>&1; then
	for f in $files; do
		clang-format-14 --dry-run -Werror "$f" >/dev/null 2>&1 || fail "$f: not formatted (make format)"
	done
else
	echo "lint: clang-format-14 missing, format not checked (make install-deps)"; bad=1
fi
/usr/bin/python3 tools/layers.py || bad=1
banned='\b(strcpy|strcat|sprintf|vsprintf|gets|strtok|atoi|atol|alloca|rand|srand|sleep|usleep|system|popen)[ ]*\('
for f in $files; do
	case $f in tests/*) only='(strcpy|strcat|sprintf|gets|alloca)[ ]*\(' ;; *) only=$banned ;; esac
	grep -nE "(^|[^a-zA-Z0-9_>.\"])$only" "$f" | grep -vE '^[0-9]+:[ \t]*(\*|/\*|//)' | sed "s|^|lint: $f: banned call: |" | grep . && bad=1
	case $f in common/base.c | tests/* | bpf/*.bpf.c) ;; *)
		grep -nE '(^|[^a-zA-Z0-9_>.])(malloc|calloc|realloc|free|strdup|strndup)\(' "$f" | grep -vE '^[0-9]+:[ \t]*(\*|/\*)' | sed "s|^|lint: $f: raw allocation: |" | grep . && bad=1 ;;
	esac
	head -1 "$f" | grep -q 'SPDX-License-Identifier' || fail "$f: no SPDX line"
	[ "$(wc -l <"$f")" -le 800 ] || fail "$f: more than 800 lines"
	grep -nE '[ 	]+$' "$f" >/dev/null && fail "$f: trailing space"
	grep -nE '\b(TODO|FIXME|XXX)\b([^(]|$)' "$f" >/dev/null && fail "$f: TODO without owner"
done
git grep -nE '^(<<<<<<<|>>>>>>>) ' -- . && fail "a merge is not finished"
if command -v shellcheck >/dev/null 2>&1; then
	shellcheck tools/*.sh .ci/run || bad=1
fi
[ "$bad" -eq 0 ] && echo "lint: clean ($(echo "$files" | wc -w) files)"
exit "$bad"
