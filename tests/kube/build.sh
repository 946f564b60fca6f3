#!/usr/bin/env bash
# Makes etcd, kube-apiserver, kube-controller-manager and kube-scheduler in a folder: `make kube-binaries`.
#
# Of Debian 12's packages, whose lists apt checks; nothing is installed, and the machine's own lists stay as they are.
# Takes 3 GB while it builds, and leaves 200 MB. JOBS=1 is for a machine that has other work.
set -euo pipefail

out=${1:?a folder}
mkdir -p "$out"
out=$(cd "$out" && pwd)
[ -x "$out/kube-scheduler" ] && { echo "$out has them already"; exit 0; }
work=$(mktemp -d "$out/building.XXXXXX")
trap 'chmod -R u+w "$work" && rm -rf "$work"' EXIT
cd "$work"

for kind in deb deb-src; do
  for suite in "debian bookworm" "debian-security bookworm-security"; do
    echo "$kind [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/$suite main"
  done
done > sources.list
mkdir -p lists/partial
apt=(apt-get -q -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/lists"
     -o Acquire::Languages=none -o APT::Sandbox::User="$(id -un)")
"${apt[@]}" update
"${apt[@]}" download golang-1.19-go golang-1.19-src etcd-server golang-github-modern-go-reflect2-dev
for package in *.deb; do dpkg-deb -x "$package" root; done
"${apt[@]}" source kubernetes
cd kubernetes-*/
# Its own copy reads maps as Go did before 1.18, and the server dies of it.
rm -r vendor/github.com/modern-go/reflect2
cp -r "$work/root/usr/share/gocode/src/github.com/modern-go/reflect2" vendor/github.com/modern-go

# The build copies its programs with rsync and would take no other.
mkdir "$work/bin"
printf '#!/bin/sh\nshift\nexec cp -p "$@"\n' > "$work/bin/rsync"
chmod +x "$work/bin/rsync"
mkdir -p .go/src/k8s.io "$work/tmp"
ln -s ../../.. .go/src/k8s.io/kubernetes
programs=(kube-apiserver kube-controller-manager kube-scheduler)
env -i PATH="$work/bin:$work/root/usr/lib/go-1.19/bin:$PATH" HOME="$work" TMPDIR="$work/tmp" GOPATH="$PWD/.go" \
  GOROOT="$work/root/usr/lib/go-1.19" GOFLAGS="-p=${JOBS:-$(nproc)} -tags=providerless" CGO_ENABLED=0 \
  make WHAT="${programs[*]/#/cmd/}"

mv "$work/root/usr/bin/etcd" "${programs[@]/#/_output/bin/}" "$out"
