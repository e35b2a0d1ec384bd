#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# Builds $DIST/hhwatchd_<version>_<arch>.deb. The same commit and the same Go
# give the same bytes, whoever builds, where and when. From the environment:
#
#   DIST               the directory for the package; default: dist
#   ARCH               amd64 or arm64; default: this machine's
#   VERSION            default: from the newest tag, see version below
#   SOURCE_DATE_EPOCH  the time of everything in the package, in seconds;
#                      default: that of the commit
#                      (https://reproducible-builds.org/specs/source-date-epoch/)

set -euo pipefail
cd "$(dirname "$0")/../.."
export LC_ALL=C TZ=UTC
umask 022

# version turns the newest tag into a version that dpkg sorts as people do:
#
#   v1.2.0                       1.2.0
#   v1.2.0-rc.1                  1.2.0~rc.1, before 1.2.0
#   4 commits after v1.2.0       1.2.0+4.gabcdef123456
#   no tag                       0~20261231.gabcdef123456
#   local changes to any         ...+dirty
version() {
	local tag
	tag=$(git describe --tags --match 'v[0-9]*' --abbrev=12 --dirty=+dirty 2>/dev/null) ||
		tag=v0-$(git log -1 --date=format-local:%Y%m%d --format=%cd).g$(git describe --always --exclude '*' --abbrev=12 --dirty=+dirty)
	sed -E 's/^v//; s/-([0-9]+)-g/+\1.g/; s/-/~/g' <<<"$tag"
}

# licences lists the licences of what is linked into the program: of Go, of
# each module, and of what its packages hold from elsewhere.
licences() {
	printf '\n%s\n\nGo %s: LICENSE\n\n' "$rule" "$(go env GOVERSION | sed 's/^go//')"
	cat "$(go env GOROOT)/LICENSE"
	go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Version}} {{.Dir}} {{$.Dir}}{{end}}{{end}}' ./cmd/hhwatchd |
		while read -r path version root dir; do
			while :; do
				find "$dir" -maxdepth 1 -type f \( -iname 'licen[cs]e*' -o -iname 'copying*' -o -iname 'notice*' -o -iname 'patents*' \) \
					-printf "$path $version $root %p\n"
				[[ $dir != "$root" ]] || break
				dir=${dir%/*}
			done
		done | sort -u |
		while read -r path version root file; do
			printf '\n%s\n\n%s %s: %s\n\n' "$rule" "$path" "$version" "${file#"$root"/}"
			# Debian has the terms of the Apache licence in one place.
			sed -E '/TERMS AND CONDITIONS FOR USE, REPRODUCTION/,/END OF TERMS AND CONDITIONS/ {
				/END OF TERMS AND CONDITIONS/! d
				s|.*|   (The terms are those in /usr/share/common-licenses/Apache-2.0.)|
			}' "$file"
		done
}
rule=------------------------------------------------------------------------

DIST=${DIST:-dist}
ARCH=${ARCH:-$(dpkg --print-architecture)}
case $ARCH in
amd64 | arm64) ;; # Go calls them the same
*)
	echo "build.sh: ARCH=$ARCH: only amd64 and arm64 are built" >&2
	exit 2
	;;
esac
VERSION=${VERSION:-$(version)}
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
# The oldest processors of each architecture, whatever the builder's settings.
export GOOS=linux GOARCH=$ARCH GOAMD64=v1 GOARM64=v8.0 CGO_ENABLED=0

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
root=$work/root
doc=$root/usr/share/doc/hhwatchd

echo "building hhwatchd $VERSION for $ARCH"
go build -trimpath -buildvcs=false -ldflags "-s -w -X main.buildVersion=$VERSION" -o "$work/hhwatchd" ./cmd/hhwatchd
install -D -m 755 "$work/hhwatchd" "$root/usr/bin/hhwatchd"
install -D -m 644 packaging/systemd/hhwatchd.service "$root/usr/lib/systemd/system/hhwatchd.service"
install -D -m 644 packaging/systemd/hhwatchd.sysusers.conf "$root/usr/lib/sysusers.d/hhwatchd.conf"
install -D -m 644 packaging/systemd/hhwatchd.catalog "$root/usr/lib/systemd/catalog/hhwatchd.catalog"
install -D -m 644 packaging/systemd/hhwatchd.tmpfiles.conf "$root/usr/lib/tmpfiles.d/hhwatchd.conf"
install -D -m 644 -t "$doc/examples" packaging/hhwatchd.yaml packaging/rbac.yaml \
	packaging/prometheus/hhwatchd.rules.yaml packaging/grafana/hhwatchd.json
for page in packaging/man/*; do
	file=$root/usr/share/man/man${page##*.}/${page##*/}.gz
	mkdir -p "${file%/*}"
	gzip -9n <"$page" >"$file"
done
# What completes command lines says so itself; a program for another
# architecture cannot be asked here.
program=$work/hhwatchd
if [[ $ARCH != "$(dpkg --print-architecture)" ]]; then
	program=$work/native
	env -u GOARCH go build -o "$program" ./cmd/hhwatchd
fi
for completion in bash:bash-completion/completions/hhwatchd zsh:zsh/vendor-completions/_hhwatchd fish:fish/vendor_completions.d/hhwatchd.fish; do
	file=$root/usr/share/${completion#*:}
	mkdir -p "${file%/*}"
	"$program" completion "${completion%%:*}" >"$file"
done
install -D -m 644 packaging/deb/lintian-overrides "$root/usr/share/lintian/overrides/hhwatchd"
{
	cat packaging/deb/copyright
	licences
} >"$doc/copyright"
gzip -9n <CHANGELOG.md >"$doc/CHANGELOG.md.gz"
gzip -9n >"$doc/changelog.gz" <<END
hhwatchd ($VERSION) unstable; urgency=medium

  * What changed is in CHANGELOG.md.gz, beside this file.

 -- $(sed -n 's/^Maintainer: //p' packaging/deb/control)  $(date -R -d "@$SOURCE_DATE_EPOCH")
END

mkdir "$root/DEBIAN"
size=$(find "$root" -type f -printf '%s\n' | awk '{ kib += int(($1 + 1023) / 1024) } END { print kib }')
sed "s/@VERSION@/$VERSION/; s/@ARCH@/$ARCH/; s/@SIZE@/$size/" packaging/deb/control >"$root/DEBIAN/control"
install -m 755 -t "$root/DEBIAN" packaging/deb/postinst packaging/deb/prerm packaging/deb/postrm
(cd "$root" && find . -path ./DEBIAN -prune -o -type f -printf '%P\0' | sort -z | xargs -0 md5sum >DEBIAN/md5sums)

find "$root" -exec touch --no-dereference --date="@$SOURCE_DATE_EPOCH" {} +
mkdir -p "$DIST"
# One thread: how xz cuts the data must not depend on the number of processors.
dpkg-deb --root-owner-group -Zxz --threads-max=1 --build "$root" "$DIST/hhwatchd_${VERSION}_$ARCH.deb"
