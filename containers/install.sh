#!/usr/bin/env bash
# The steps of an image, for the Dockerfile and nanochat-standalone.def alike. It runs inside a build, in /src:
#
#   bash containers/install.sh system     what stays: Python, its headers, a C++ compiler, InfiniBand's libraries
#   bash containers/install.sh wheel      rustbpe from source -> /wheels; needs Rust
#   bash containers/install.sh packages   /opt/venv with the locked packages of $TORCH_VARIANT
#   bash containers/install.sh project    nanochat and rustbpe into /opt/venv, which is made lean, readable and checked
#
#   bash containers/install.sh tests      what the tests need, into /opt/venv
#
# What a machine cannot download is mounted at /mnt and never copied: ca.crt (authorities of a proxy that opens TLS),
# wheels/ (a torch wheel), vendor/ (crates, by `cargo vendor`), rust/ (a toolchain).
set -euo pipefail
shopt -s nullglob

export DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
export UV_PYTHON_DOWNLOADS=never UV_LINK_MODE=copy UV_NO_PROGRESS=1 PYTHONHASHSEED=0
HATCHLING=1.33.0 # it writes its version into our wheel
VENV=/opt/venv UV=/opt/uv/bin/uv LOCK=/src/env/locks/${TORCH_VARIANT:-cpu}.txt
[ -z "${EPOCH:-}" ] || export SOURCE_DATE_EPOCH=$EPOCH # an argument of this name newer buildahs refuse (build.sh)
[ ! -f /mnt/ca.crt ] || export SSL_CERT_FILE=/mnt/ca.crt PIP_CERT=/mnt/ca.crt CARGO_HTTP_CAINFO=/mnt/ca.crt
[ ! -d /mnt/rust/bin ] || PATH=/mnt/rust/bin:$PATH

fail() { printf 'install: %s\n' "$*" >&2; exit 1; }

# debian PACKAGE...: install them and leave neither lists nor logs, which would differ from build to build. Nothing
# here may touch /tmp, /var/tmp or $HOME: Apptainer has the host's own in their place while it builds.
debian() {
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "$@" >/dev/null
  rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/debconf/*-old /var/lib/dpkg/*-old /var/cache/ldconfig/aux-cache
  rm -rf /var/log/apt /var/log/*.log /usr/share/doc/* /usr/share/man/* /usr/share/info/* /usr/share/locale/*
}

# torch.compile writes C++ and builds it (and hashes its precompiled headers by openssl), on GPUs triton a launcher
# against Python.h: so these stay. What they do not read goes: the link-time optimiser, sanitizers, static libraries.
system() {
  debian python3 libpython3-dev g++ openssl libibverbs1 ibverbs-providers librdmacm1
  rm -f /usr/lib/gcc/*/*/{lto1,lto-wrapper,g++-mapper-server} /usr/lib/gcc/*/*/lib{asan,hwasan,lsan,tsan,ubsan}* \
    /usr/lib/*/lib{asan,hwasan,lsan,tsan,ubsan}.so.* /usr/lib/*/lib{c,m-*,mvec}.a \
    /usr/lib/python3*/config-*/libpython*.a /usr/lib/*/libpython*.a
}

get_uv() {
  debian gcc libc6-dev python3 python3-venv
  python3 -m venv /opt/uv
  /opt/uv/bin/pip install -q "uv==$UV_VERSION" || fail "uv $UV_VERSION cannot be had: is there a network? Behind a \
proxy that opens TLS, put its authorities into the inputs folder as ca.crt (containers/README.md)"
}

wheel() {
  command -v cargo >/dev/null || fail "no cargo: the builder image must have Rust, or the inputs folder a rust/"
  get_uv
  "$UV" venv -q /opt/maturin
  "$UV" pip install -q -p /opt/maturin --constraint "$LOCK" maturin
  if [ -d /mnt/vendor ]; then
    mkdir -p /src/.cargo
    printf '[source.crates-io]\nreplace-with = "vendor"\n[source.vendor]\ndirectory = "/mnt/vendor"\n' >/src/.cargo/config.toml
  fi
  (cd rustbpe && CARGO_TARGET_DIR=/src/target /opt/maturin/bin/maturin build --quiet --release --locked \
    --compatibility linux --out /wheels)
}

packages() {
  local version from=() wheels
  version=$(sed -n 's/^torch==//p' "$LOCK")
  wheels=(/mnt/wheels/torch-"$version"*)
  if [ ${#wheels[@]} -gt 0 ]; then from=(--find-links /mnt/wheels)
  elif [ "$TORCH_VARIANT" != cu130 ]; then from=("--torch-backend=$TORCH_VARIANT"); fi # cu130 is the registry's own
  get_uv
  "$UV" venv -q "$VENV"
  "$UV" pip install -q -p "$VENV" ${from[@]+"${from[@]}"} --constraint "$LOCK" -r pyproject.toml \
    --extra report --extra serve --extra slurm "torch==$version" || fail "the packages of $LOCK cannot be had; \
where torch's own index is out of reach, put a wheel of torch $version into the inputs folder's wheels/"
}

project() {
  echo "hatchling==$HATCHLING" >/opt/uv/build.txt
  "$UV" pip install -q -p "$VENV" --no-deps --build-constraint /opt/uv/build.txt . /wheels/*.whl
  "$UV" pip freeze -q -p "$VENV" >"$VENV/packages.txt"
  lean
  # A read-only image cannot keep what Python compiles. torch has a file in the syntax of a newer Python. With -S no
  # package is imported before it is compiled, which would alter a byte.
  "$VENV/bin/python" -S -m compileall -q -j 0 --invalidation-mode unchecked-hash -x 'py31[0-9]_' "$VENV/lib"
  chmod -R a+rX,go-w "$VENV"
  check
}

tests() {
  "$UV" pip install -q -p "$VENV" --constraint "$LOCK" -r pyproject.toml --extra dev --extra bench
}

# Tests of other packages, torch's test programs, tools to unpack and to link against; when uv installed what.
lean() {
  local record place=("$VENV"/lib/python3*/site-packages)
  cd "${place[0]}" # fails where there is none, and does not go home to remove things
  for record in nanochat_*.dist-info/RECORD; do
    grep -v uv_cache.json "$record" >"$VENV/record"
    mv "$VENV/record" "$record"
  done
  rm -f nanochat_*.dist-info/uv_cache.json
  find . -depth -type d -name __pycache__ -exec rm -rf {} +
  find numpy pandas pyarrow matplotlib mpl_toolkits psutil -depth -type d -name tests -exec rm -rf {} +
  rm -rf torch/test pyarrow/include matplotlib/mpl-data/sample_data torch/lib/*_test.so torch/lib/*.a
  find torch/bin -type f ! -name torch_shm_manager -delete
  cd /src
}

# The labels must be true.
check() {
  "$VENV/bin/python" - "$TORCH_VARIANT" "$LOCK" "${LOCK_SHA256:-}" <<'PYTHON'
import hashlib, pathlib, sys
import torch
import nanochat, rustbpe, scripts, tasks

variant, lock, wanted = sys.argv[1:]
found = "cpu" if torch.version.cuda is None else "cu" + torch.version.cuda.replace(".", "")
if found != variant:
    sys.exit(f"install: this torch is {torch.__version__} ({found}), and {variant} was asked for")
digest = hashlib.sha256(pathlib.Path(lock).read_bytes()).hexdigest()
if wanted not in ("", digest):
    sys.exit(f"install: {lock} has SHA-256 {digest}, and the label would say {wanted}")
PYTHON
}

case ${1:-} in
  system | wheel | packages | project | tests) "$1" ;;
  *) fail "unknown step '${1:-}'; legal are system, wheel, packages, project, tests" ;;
esac
