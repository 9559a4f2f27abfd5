#!/usr/bin/env bash
# Real container tools on Debian 12, as root: buildah, podman, skopeo, and Apptainer below $PREFIX. Run it again freely.
#
# Apptainer is in Debian sid only and wants a newer libc than bookworm's: both are fetched by apt, which checks their
# signatures, unpacked below $PREFIX, and Apptainer's two programs are pointed at that libc. The host stays as it is.
# Apptainer runs as the plain user $CONTAINER_USER (default ctest), for as root it wants CAP_SYS_RESOURCE.
set -euo pipefail
PREFIX=${PREFIX:-/opt/apptainer} CONTAINER_USER=${CONTAINER_USER:-ctest}
export DEBIAN_FRONTEND=noninteractive

install_tools() {
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends buildah podman runc crun fuse-overlayfs uidmap slirp4netns netavark \
    aardvark-dns skopeo mmdebstrap squashfs-tools squashfuse fuse3 patchelf libseccomp2 libsqlite3-0 fakeroot \
    e2fsprogs gnupg >/dev/null
}

install_apptainer() {
  local work mirror suite program libc
  work=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf '$work'" EXIT
  # shellcheck disable=SC2016
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$PREFIX/libc"
  for suite in sid trixie; do
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main"
  done >"$work/sources.list"
  local apart=(-o "Dir::Etc::SourceList=$work/sources.list" -o Dir::Etc::SourceParts=/dev/null
    -o "Dir::State::Lists=$work/lists" -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root)
  apt-get "${apart[@]}" update -qq
  (cd "$work" && apt-get "${apart[@]}" download -qq apptainer/sid libc6/trixie)
  dpkg-deb -x "$work"/libc6_*.deb "$PREFIX/libc"
  dpkg-deb -x "$work"/apptainer_*.deb "$PREFIX"
  libc=$(dirname "$(find "$PREFIX/libc" -name 'libc.so.6' | head -n 1)")
  for program in "$PREFIX/usr/bin/apptainer" "$PREFIX"/usr/lib/*/apptainer/bin/starter; do
    patchelf --set-interpreter "$(find "$libc" -name 'ld-linux-*')" --set-rpath "$libc:${libc#"$PREFIX/libc"}" "$program"
  done
  # It looks for its configuration in two places.
  ln -sfn ../etc "$PREFIX/usr/etc"; ln -sfn ../var "$PREFIX/usr/var"
  ln -sfn ../../etc "$PREFIX/usr/lib/etc"; ln -sfn ../../var "$PREFIX/usr/lib/var"
}

install_tools
id "$CONTAINER_USER" >/dev/null 2>&1 || useradd -m "$CONTAINER_USER" # with a range of subordinate ids
[ -x "$PREFIX/usr/bin/apptainer" ] || install_apptainer
"$PREFIX/usr/bin/apptainer" --version
buildah --version
podman --version
