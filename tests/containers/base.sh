#!/usr/bin/env bash
# A base image from Debian's packages, for machines that reach no image registry: base.sh NAME ARCHIVE
# It is what debian:bookworm-slim is, without Python and without anything of ours.
set -euo pipefail
name=$1 archive=$2 tar=$2.root.tar
trap 'rm -f "$tar"' EXIT
# shellcheck disable=SC2016
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -v security | head -n 1)
mmdebstrap --quiet --variant=minbase bookworm "$tar" "$mirror"
podman import --quiet --change 'CMD ["/bin/bash"]' "$tar" "$name"
rm -f "$archive"
podman save --quiet --format docker-archive -o "$archive" "$name"
chmod 644 "$archive"
