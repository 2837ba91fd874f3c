#!/bin/sh
# Installs the servers that the interop tests talk to, where this machine lets it: Debian or a
# relative, and root. Elsewhere the tests skip what they do not find, and say so.
list=$(dirname "$0")/debian-packages.txt
command -v dpkg-query >/dev/null 2>&1 || { echo "interop: no Debian packages on this system; their tests skip"; exit 0; }
missing=
while read -r package; do
  case $package in ''|\#*) continue ;; esac
  dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done <"$list"
[ -z "$missing" ] && exit 0
[ "$(id -u)" = 0 ] || { echo "interop: not root, so these stay away and their tests skip:$missing"; exit 0; }
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq >/dev/null 2>&1
# shellcheck disable=SC2086 # a list of words is meant
apt-get install -y -qq --no-install-recommends $missing >/dev/null 2>&1 ||
  echo "interop: could not install everything of:$missing; the tests of the rest skip"
exit 0
