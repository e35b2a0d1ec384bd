#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Installs what the tests need and this machine lacks, on Debian: git, which
# serves the repositories; a C compiler, which Go's race detector links with;
# what boots a Debian machine for the installed service; and what checks the
# package. Says what it does; does nothing when nothing is missing.
set -eu

missing=
command -v git >/dev/null || missing="$missing git"
command -v gcc >/dev/null || missing="$missing gcc libc6-dev"
command -v unshare >/dev/null || missing="$missing util-linux"
command -v systemd-nspawn >/dev/null || missing="$missing systemd-container"
command -v mmdebstrap >/dev/null || missing="$missing mmdebstrap"
command -v lintian >/dev/null || missing="$missing lintian"
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
[ -z "$missing" ] && exit 0

sudo=
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null || { echo "setup: install as root:$missing" >&2; exit 1; }
	sudo=sudo
fi
echo "setup: installing$missing"
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -qq
# shellcheck disable=SC2086 # a list of packages
$sudo apt-get install -qq -y --no-install-recommends $missing >/dev/null
