# SPDX-License-Identifier: GPL-2.0
# Shared by the set-up scripts: where things are, how to speak, and how an artefact is made once.
# shellcheck shell=bash
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
# shellcheck source=tools/setup/versions
. "$top/tools/setup/versions"
# shellcheck disable=SC2034 # it is for those who source this
cache=${DM_RS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/dm-rs}

say() { printf '%s\n' "$*" >&2; }
loud() { printf '\n*** %s\n\n' "$*" >&2; }
die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# The name of what is made from the text on stdin.
key() { sha256sum | cut -c1-12; }

# artefact PATH COMMAND...: makes PATH by `COMMAND... TMP` unless it is there. Two runs at once make it
# once; what a killed run left is thrown away; PATH is whole whenever it exists.
artefact() {
	local path=$1 lock
	shift
	[ -e "$path" ] && return
	mkdir -p "$(dirname "$path")" "$cache/locks"
	exec {lock}>"$cache/locks/${path//\//_}"
	flock -n "$lock" || {
		say "another run is making $path: waiting for it"
		flock "$lock"
	}
	if [ ! -e "$path" ]; then
		rm -rf "$path.part"
		"$@" "$path.part"
		mv "$path.part" "$path"
	fi
	exec {lock}>&-
}
