#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
#
# Installs what the tests need and this machine lacks, on Debian: git and sshd,
# which serve the repositories; gpg, which signs commits; a C compiler, which
# Go's race detector links with; what boots a Debian machine for the installed
# service; what checks the package; and promtool, which alone is taken from
# Prometheus' package. Says what it does; does nothing when nothing is missing.
set -eu

missing=
command -v git >/dev/null || missing="$missing git"
command -v gcc >/dev/null || missing="$missing gcc libc6-dev"
command -v unshare >/dev/null || missing="$missing util-linux"
command -v systemd-nspawn >/dev/null || missing="$missing systemd-container"
command -v mmdebstrap >/dev/null || missing="$missing mmdebstrap"
command -v lintian >/dev/null || missing="$missing lintian"
command -v gpg >/dev/null || missing="$missing gnupg"
[ -e /etc/ssl/certs/ca-certificates.crt ] || missing="$missing ca-certificates"
sshd=
[ -x /usr/sbin/sshd ] && [ -d /run/sshd ] || sshd=sshd
promtool=
command -v promtool >/dev/null || promtool=promtool
[ -z "$missing$sshd$promtool" ] && exit 0

sudo=
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null || { echo "setup: install as root:$missing $sshd $promtool" >&2; exit 1; }
	sudo=sudo
fi
echo "setup: installing$missing $sshd $promtool"
export DEBIAN_FRONTEND=noninteractive
[ -z "$missing$promtool" ] && [ -x /usr/sbin/sshd ] || $sudo apt-get update -qq
if [ -n "$missing" ]; then
	# shellcheck disable=SC2086 # a list of packages
	$sudo apt-get install -qq -y --no-install-recommends $missing >/dev/null
fi
if [ ! -x /usr/sbin/sshd ]; then
	# The tests run it themselves; nobody has asked for a service
	# (https://www.debian.org/doc/debian-policy/ch-opersys.html, policy-rc.d).
	policy=
	if [ ! -e /usr/sbin/policy-rc.d ]; then
		policy=/usr/sbin/policy-rc.d
		printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null
		$sudo chmod 755 $policy
	fi
	$sudo apt-get install -qq -y --no-install-recommends openssh-server >/dev/null || failed=1
	[ -z "$policy" ] || $sudo rm $policy
	[ -z "${failed-}" ]
	$sudo systemctl disable --quiet ssh.service ssh.socket 2>/dev/null || true
fi
# What its unit makes (RuntimeDirectory=).
[ -d /run/sshd ] || $sudo mkdir -m 755 /run/sshd
if [ -n "$promtool" ]; then
	# Installing the package would start a Prometheus.
	dir=$(mktemp -d)
	trap 'rm -rf "$dir"' EXIT
	(cd "$dir" && apt-get download -qq prometheus >/dev/null 2>&1 && dpkg-deb -x prometheus_*.deb .) ||
		{ echo "setup: no promtool to be had; the tests that need it are skipped" >&2; exit 0; }
	$sudo install -m 755 "$dir/usr/bin/promtool" /usr/local/bin/promtool
fi
