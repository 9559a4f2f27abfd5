#!/usr/bin/env bash
# Builds the image of this clone. It asks containers/doctor.sh first, so that what is missing is said before the wait.
#
#   bash containers/build.sh [docker|podman|buildah|apptainer] [options] [-- arguments of the engine]
#
#   --variant    torch for: cpu (default), cu126, cu128, cu130
#   --arch       amd64 or arm64 (default: this machine's); the other one needs QEMU, or its own machine
#   --base       the base image instead of the one in images.lock; for apptainer also docker-archive:FILE,
#                oci-archive:FILE or localimage:FILE, and then --builder, too
#   --builder    the image with Rust, likewise
#   --inputs     a folder with what cannot be downloaded here: wheels/, vendor/, rust/, ca.crt
#   --tag        name of the image (default: localhost/nanochat:VARIANT); for apptainer the file (nanochat-VARIANT.sif)
#   --target     runtime (default) or test (not by apptainer)
#   --oci        in OCI's format: reproducible to the digest, but without a health check (podman, buildah)
#   --archive    write the image to this file, from which Apptainer makes a SIF (docker, podman, buildah)
#   --from       apptainer: make the SIF of that archive instead of building from the bases
#   --print      print the commands and run none
#   --refresh    read the digests of images.lock from the registry, with skopeo, and write them
#
# Engine: the first of docker, podman, buildah, apptainer that answers. Times in the image are those of the commit.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

HERE=$OLDPWD ENGINE='' VARIANT=cpu ARCH='' BASE='' BUILDER='' INPUTS='' TAG='' TARGET='' FORMAT=docker ARCHIVE='' FROM=''
PRINT='' REFRESH='' EXTRA=()
LOCKED=${NANOCHAT_IMAGES_LOCK:-containers/images.lock}

say() { printf 'build: %s\n' "$*" >&2; }
fail() { printf 'build: %s\n' "$1" >&2; exit "${2:-1}"; }
from_here() { case $1 in /*) printf '%s' "$1" ;; *) printf '%s' "$HERE/$1" ;; esac; }

# Where an image comes from, as Apptainer calls it: docker, or the kind of a file.
kind() { case $1 in docker-archive:* | oci-archive:* | localimage:*) printf '%s' "${1%%:*}" ;; *) printf docker ;; esac; }
reference() { if [ "$(kind "$1")" = docker ]; then printf '%s' "$1"; else printf '%s' "${1%%:*}:$(from_here "${1#*:}")"; fi; }
native() { case $(uname -m) in x86_64) printf amd64 ;; aarch64 | arm64) printf arm64 ;; esac; }

parse_options() {
  while [ $# -gt 0 ]; do
    case $1 in
      --variant | --arch | --base | --builder | --inputs | --tag | --target | --archive | --from)
        [ $# -ge 2 ] || fail "$1 needs a value; see --help" 2 ;;
    esac
    case $1 in
      docker | podman | buildah | apptainer) ENGINE=$1; shift ;;
      --variant) VARIANT=$2; shift 2 ;;
      --arch) ARCH=$2; shift 2 ;;
      --base) BASE=$(reference "$2"); shift 2 ;;
      --builder) BUILDER=$(reference "$2"); shift 2 ;;
      --inputs) INPUTS=$(from_here "$2"); shift 2 ;;
      --tag) TAG=$2; shift 2 ;;
      --target) TARGET=$2; shift 2 ;;
      --oci) FORMAT=oci; shift ;;
      --archive) ARCHIVE=$(from_here "$2"); shift 2 ;;
      --from) FROM=$(from_here "$2"); shift 2 ;;
      --print) PRINT=yes; shift ;;
      --refresh) REFRESH=yes; shift ;;
      -h | --help) sed -n '2,/^# Engine/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}"; exit 0 ;;
      --) shift; EXTRA=("$@"); break ;;
      *) fail "unknown argument $1; engines are docker, podman, buildah, apptainer; options: see --help" 2 ;;
    esac
  done
}

# only WHAT ENGINE...: these alone can honour what was asked for.
only() { case " ${*:2} " in *" $ENGINE "*) ;; *) fail "$1 is not for $ENGINE; engines that can: ${*:2}" 2 ;; esac; }

check_options() {
  case $VARIANT in cpu | cu126 | cu128 | cu130) ;; *) fail "unknown variant $VARIANT; legal are cpu, cu126, cu128, cu130" 2 ;; esac
  case $TARGET in '' | runtime | test) ;; *) fail "unknown target $TARGET; legal are runtime, test" 2 ;; esac
  ARCH=${ARCH:-$(native)}
  case $ARCH in amd64 | arm64) ;; *) fail "unknown architecture ${ARCH:-$(uname -m)}; legal are amd64, arm64" 2 ;; esac
  [ -z "$INPUTS" ] || [ -d "$INPUTS" ] || fail "the inputs folder $INPUTS is not there" 2
  [ -z "$TARGET" ] || only "--target $TARGET" docker podman buildah
  [ -z "$ARCHIVE" ] || only "--archive $ARCHIVE" docker podman buildah
  [ "$FORMAT" != oci ] || only --oci podman buildah
  [ -z "$FROM" ] || only "--from $FROM" apptainer
  [ "$(kind "$BASE")" = docker ] || only "--base $BASE" apptainer
  [ "$(kind "$BUILDER")" = docker ] || only "--builder $BUILDER" apptainer
  [ "$(kind "$BASE")" = "$(kind "$BUILDER")" ] || fail "--base ${BASE:-of images.lock} and --builder \
${BUILDER:-of images.lock} are of two kinds, and the definition has one: name both alike, such as docker-archive:FILE" 2
  [ -z "$FROM" ] || [ -f "$FROM" ] || [ -n "$PRINT" ] || fail "the archive $FROM is not there; make it with --archive" 2
}

find_engine() {
  local name
  for name in docker podman buildah apptainer; do
    command -v "$name" >/dev/null || continue
    [ "$name" != docker ] || docker info >/dev/null 2>&1 || continue # a client without its server
    ENGINE=$name
    return
  done
  fail "none of docker, podman, buildah, apptainer is here: load your site's module or install one"
}

# A line of images.lock: column 2 is the name, column 3 its digest or "unverified".
locked() { awk -v name="$1" -v column="$2" '$1 == name { print $column }' "$LOCKED"; }

# name@digest of an image in the lock, or the name alone as long as no digest was read.
pinned() {
  local digest
  digest=$(locked "$1" 3)
  case $digest in
    sha256:*) printf '%s@%s' "$(locked "$1" 2)" "$digest" ;;
    *) say "$(locked "$1" 2) is not pinned to a digest: build.sh --refresh"; locked "$1" 2 ;;
  esac
}

refresh() {
  local name reference digest lines=''
  command -v skopeo >/dev/null || fail "--refresh reads digests with skopeo: install it"
  while read -r name reference digest; do
    case $name in
      '' | '#'*) lines+="$name${reference:+ $reference}${digest:+ $digest}"$'\n' ;;
      *)
        digest=$(skopeo inspect --raw "docker://$reference" | sha256) || fail "the registry of $reference does not answer"
        lines+=$(printf '%-10s %-43s sha256:%s' "$name" "$reference" "$digest")$'\n' ;;
    esac
  done <"$LOCKED"
  printf '%s' "$lines" >"$LOCKED.tmp"
  mv "$LOCKED.tmp" "$LOCKED"
  cat "$LOCKED"
}

sha256() { if command -v shasum >/dev/null; then shasum -a 256; else openssl dgst -sha256 -r; fi | cut -d ' ' -f 1; }

run() {
  printf '%q ' "$@"
  printf '\n'
  [ -n "$PRINT" ] || "$@"
}

# What the labels say: sets ARGS (KEY=VALUE...) from the clone, the lock and the bases.
facts() {
  local lock=env/locks/$VARIANT.txt cuda=none revision=${NANOCHAT_COMMIT:-unknown}
  case $VARIANT in cu*) cuda=${VARIANT#cu}; cuda=${cuda%?}.${cuda#??} ;; esac
  if [ -e .git ] && command -v git >/dev/null; then
    revision=$(git rev-parse HEAD 2>/dev/null) || fail "git refuses this clone ($(git rev-parse HEAD 2>&1 >/dev/null |
      sed -n 1p)); if it is yours to trust: git config --global --add safe.directory $PWD"
    [ -z "$(git status --porcelain 2>/dev/null)" ] || revision=$revision-dirty
  fi
  EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null)} || EPOCH=0
  unset SOURCE_DATE_EPOCH # as variable or argument newer buildahs refuse it beside --timestamp
  BASE_DIGEST=unverified
  [ -n "$BASE" ] || { BASE=$(pinned base); BASE_DIGEST=$(locked base 3); }
  [ -n "$BUILDER" ] || BUILDER=$(pinned builder)
  ARGS=("TORCH_VARIANT=$VARIANT" "TORCH=$(sed -n 's/^torch==//p' "$lock")" "CUDA=$cuda" "LOCK_SHA256=$(sha256 <"$lock")"
    "REVISION=$revision" "VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)" "BASE_DIGEST=$BASE_DIGEST"
    "CREATED=$(TZ=UTC git log -1 --date=format-local:%Y-%m-%dT%H:%M:%SZ --format=%cd 2>/dev/null || echo 1970-01-01T00:00:00Z)"
    "EPOCH=$EPOCH")
}

# --------------------------------------------------------------- docker, podman, buildah

check_base() { # a registry that cannot be reached is said at once, and not in a stage
  local image
  [ -z "$PRINT" ] || return 0
  for image in "$BASE" "$BUILDER"; do
    "$ENGINE" inspect --type=image "$image" >/dev/null 2>&1 || "$ENGINE" pull "$image" >/dev/null ||
      fail "the image $image cannot be had (see above): name one that is here with --base and --builder, or load \
it: podman load -i FILE"
  done
}

build_image() {
  local words=() word
  ARGS+=("BASE_IMAGE=$BASE" "BUILDER_IMAGE=$BUILDER")
  for word in "${ARGS[@]}"; do words+=(--build-arg "$word"); done
  [ -z "$INPUTS" ] || words+=(--build-context "inputs=$INPUTS")
  words+=(--platform "linux/$ARCH" --target "${TARGET:-runtime}" -f containers/Dockerfile -t "$TAG")
  check_base
  case $ENGINE in
    docker) words=(buildx build --load --build-arg "SOURCE_DATE_EPOCH=$EPOCH" "${words[@]}") ;;
    podman) words=(build --format "$FORMAT" --timestamp "$EPOCH" "${words[@]}") ;;
    buildah) words=(bud --format "$FORMAT" --timestamp "$EPOCH" "${words[@]}") ;;
  esac
  run "$ENGINE" "${words[@]}" ${EXTRA[@]+"${EXTRA[@]}"} .
  [ -z "$ARCHIVE" ] || save
}

save() {
  [ -n "$PRINT" ] || rm -f "$ARCHIVE" # skopeo's library does not write over one
  case $ENGINE in
    docker) run docker save -o "$ARCHIVE" "$TAG" ;;
    podman) run podman save --format docker-archive -o "$ARCHIVE" "$TAG" ;;
    buildah) run buildah push --quiet "$TAG" "docker-archive:$ARCHIVE:$TAG" ;;
  esac
}

# --------------------------------------------------------------- apptainer

# Older Apptainers refuse a name with both tag and digest; a port stays.
untagged() { sed -E 's/:[^:\/@]+@sha256:/@sha256:/' <<<"$1"; }

build_sif() {
  local words=() word file bootstrap
  case $TAG in localhost/*) file=nanochat-$VARIANT.sif ;; *) file=$TAG ;; esac
  file=$(from_here "$file")
  if [ -n "$FROM" ]; then
    run apptainer build --force ${EXTRA[@]+"${EXTRA[@]}"} --build-arg "ARCHIVE=$FROM" "$file" containers/nanochat.def
    return
  fi
  bootstrap=$(kind "$BASE")
  if [ "$bootstrap" = docker ]; then BASE=$(untagged "$BASE") BUILDER=$(untagged "$BUILDER"); else
    BASE=${BASE#"$bootstrap:"} BUILDER=${BUILDER#"$bootstrap:"}
    [ -e "$BASE" ] || [ -n "$PRINT" ] || fail "the base $BASE is not there; see --base" 2
    [ -e "$BUILDER" ] || [ -n "$PRINT" ] || fail "the builder $BUILDER is not there; see --builder" 2
  fi
  for word in "${ARGS[@]}" "BOOTSTRAP=$bootstrap" "FROM=$BASE" "BUILDER=$BUILDER"; do words+=(--build-arg "$word"); done
  [ -z "$INPUTS" ] || words+=(--bind "$INPUTS:/mnt:ro")
  [ "$ARCH" = "$(native)" ] || words+=(--arch "$ARCH") # an option since Apptainer 1.4 only
  run apptainer build --force ${EXTRA[@]+"${EXTRA[@]}"} "${words[@]}" "$file" containers/nanochat-standalone.def
}

main() {
  local purpose=build
  parse_options "$@"
  [ -z "$REFRESH" ] || { refresh; return; }
  [ -n "$ENGINE" ] || [ -n "$PRINT" ] || find_engine
  ENGINE=${ENGINE:-docker} TAG=${TAG:-localhost/nanochat:$VARIANT}
  check_options
  [ -n "$PRINT" ] || command -v "$ENGINE" >/dev/null || fail "$ENGINE is not on PATH: load your site's module or install it"
  # Homes have small quotas, and /tmp of a login node is often in memory.
  export APPTAINER_TMPDIR=${APPTAINER_TMPDIR:-${TMPDIR:-/var/tmp}}
  export APPTAINER_CACHEDIR=${APPTAINER_CACHEDIR:-$APPTAINER_TMPDIR/nanochat-cache-$(id -u)}
  [ -z "$FROM" ] || purpose=convert
  [ -n "$PRINT" ] || bash containers/doctor.sh --for $purpose --engine "$ENGINE" --variant "$VARIANT" >&2 ||
    fail "the faults above stand in the way; after each stands its remedy"
  [ -n "$FROM" ] || facts # an archive has its own
  if [ "$ENGINE" = apptainer ]; then build_sif; else build_image; fi
}

main "$@"
