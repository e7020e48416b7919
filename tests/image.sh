#!/usr/bin/env bash
# Builds the image as the Dockerfile says and runs it as the chart does, with podman and no registry.
#
# The two bases are stood in for under their own names: the first by this machine's programs and Rust, mounted;
# the second by glibc alone, which is what distroless/cc is. So this proves the Dockerfile's steps, paths, labels, user
# and entry point, and that the program needs no more than glibc, no shell and nothing to write to. It says nothing of
# what the real bases hold. Where no container can run at all, it says so and proves nothing. The program is built with the dev profile: the image's own takes too long for a test.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly image=localhost/chat-api:test
readonly cargo_home=${CARGO_HOME:-$HOME/.cargo}
dir=$PWD/target/image
mkdir -p "$dir/target"
scratch=$(mktemp -d)
container=
trap 'stop_container; rm -rf "$scratch"' EXIT

fail() {
  echo "tests/image.sh: $*" >&2
  exit 1
}

podman() {
  command podman --storage-driver vfs --root "$dir/store" --runroot "$dir/run" --cgroup-manager cgroupfs "$@"
}

stop_container() {
  [ -z "$container" ] || podman rm --force --time 0 "$container" >/dev/null 2>&1 || true
}

base_of() { # STAGE: the image's name after the STAGEth FROM
  awk -v stage="$1" '$1 == "FROM" && ++n == stage { print $2 }' Dockerfile
}

# What Debian's merged /usr looks like from outside, with nothing in it.
skeleton() { # DIR
  mkdir -p "$1"/{usr/bin,usr/sbin,usr/lib,usr/lib64,tmp,root,etc,proc,dev,sys}
  local name
  for name in bin sbin lib lib64; do ln -s "usr/$name" "$1/$name"; done
}

# glibc, libgcc and the dynamic linker, at the paths at which a program looks for them.
add_glibc() { # DIR
  local library known
  known=$(ldconfig -p)
  for library in libc.so.6 libm.so.6 libgcc_s.so.1 libdl.so.2 libpthread.so.0 librt.so.1; do
    # A reader that leaves early would end its writer with SIGPIPE: awk reads to the end.
    library=$(awk -v name="$library" '$1 == name && !found++ { print $NF }' <<<"$known")
    [ -n "$library" ] || continue
    install -D "$(realpath "$library")" "$1$(realpath "$(dirname "$library")")/$(basename "$library")"
  done
  library=$(ldd "$(command -v ls)" | grep -o '/[^ ]*ld-linux[^ ]*')
  install -D "$(realpath "$library")" "$1/usr${library#/usr}"
}

# By way of a file: podman may stop reading before the archive's last zeros, which would end tar with SIGPIPE.
import_base() { # DIR NAME CHANGE...
  local changes=()
  for change in "${@:3}"; do changes+=(--change "$change"); done
  tar --create --file "$scratch/base.tar" --directory "$1" .
  podman import --quiet "${changes[@]}" "$scratch/base.tar" "$2" >/dev/null
}

import_bases() {
  skeleton "$scratch/build"
  import_base "$scratch/build" "$(base_of 1)" \
    "ENV PATH=/opt/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin" "ENV CARGO_HOME=$cargo_home"
  skeleton "$scratch/final"
  add_glibc "$scratch/final"
  import_base "$scratch/final" "$(base_of 2)"
}

build() {
  # With what cargo has downloaded. What it compiles stays below target/image, so that a second run is quick.
  podman build --isolation chroot --pull-never --quiet \
    --build-arg PROFILE=dev --build-arg VERSION=1.2.3 --build-arg REVISION=abcdef \
    --volume /usr:/usr:ro --volume /etc:/etc:ro \
    --volume "$(rustc --print sysroot):/opt/rust:ro" --volume "$cargo_home:$cargo_home" --volume "$dir/target:/build/target" \
    --tag "$image" . >"$scratch/build.log" 2>&1 || { tail -n 30 "$scratch/build.log" >&2; fail "the image did not build"; }
}

inspect() { podman image inspect --format "$1" "$image"; }

expect() { # WHAT IS SHOULD
  [ "$2" = "$3" ] || fail "$1 is \"$2\", not \"$3\""
}

check_metadata() {
  expect "the user" "$(inspect '{{.Config.User}}')" 10001:10001
  expect "the entry point" "$(inspect '{{.Config.Entrypoint}}')" "[/usr/local/bin/chat-api]"
  expect "the version's label" "$(inspect '{{index .Config.Labels "org.opencontainers.image.version"}}')" 1.2.3
  expect "the revision's label" "$(inspect '{{index .Config.Labels "org.opencontainers.image.revision"}}')" abcdef
}

# The program is all that the image adds to its base.
check_contents() {
  local files
  podman save --quiet --output "$scratch/image.tar" "$image"
  mkdir "$scratch/layers"
  tar --extract --file "$scratch/image.tar" --directory "$scratch/layers"
  files=$(for layer in "$scratch"/layers/*.tar; do tar --list --file "$layer"; done | grep -v '/$' | sort)
  files=$(comm -23 <(echo "$files" | sed 's#^\./##' | sort -u) <(cd "$scratch/final" && find . -not -type d | sed 's#^\./##' | sort))
  expect "what the image adds" "$(echo "$files" | grep -v -x -e '' | tr '\n' ' ')" "usr/local/bin/chat-api "
}

free_ports() {
  python3 -c 'import socket
sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(s.getsockname()[1] for s in sockets))'
}

# podman without its own limits: raising them is refused where this runs inside another container.
run_image() { # ARGUMENT...
  podman run --ulimit nofile=1024:1024 --ulimit nproc=1024:1024 --network host \
    --read-only --read-only-tmpfs=false --cap-drop ALL --security-opt no-new-privileges "$@"
}

wait_for() { # SECONDS COMMAND...
  local deadline=$((SECONDS + $1))
  until "${@:2}" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || return 1
    sleep 0.1
  done
}

check_run() {
  local chat management
  read -r chat management <<<"$(free_ports)"
  run_image --rm "$image" --version >/dev/null || fail "chat-api --version did not run"
  container=$(run_image --detach --env "PORT=$chat" --env "MANAGEMENT_PORT=$management" --env CHAT_DRAIN__DELAY=0s "$image")
  wait_for 30 curl --fail --silent --max-time 2 "http://127.0.0.1:$management/readyz" || { podman logs "$container" >&2; fail "the container was not ready within 30 s"; }
  expect "the process's user and group" "$(awk '/^Uid|^Gid/ { print $2 }' "/proc/$(podman inspect --format '{{.State.Pid}}' "$container")/status" | tr '\n' ' ')" "10001 10001 "
  expect "the status of /api/chat-api/openapi.json" "$(curl --silent --max-time 2 --output /dev/null --write-out '%{http_code}' "http://127.0.0.1:$chat/api/chat-api/openapi.json")" 200
  podman stop --time 60 "$container" >/dev/null
  expect "the exit code after SIGTERM" "$(podman inspect --format '{{.State.ExitCode}}' "$container")" 0
}

import_bases
if ! trouble=$(run_image --rm --volume /usr:/usr:ro "$(base_of 1)" /usr/bin/true 2>&1); then
  echo "tests/image.sh: SKIPPED, no container runs on this machine: $trouble" >&2
  exit 0
fi
build
check_metadata
check_contents
check_run
echo "image: built from the Dockerfile, $(stat --format %s "$scratch/image.tar" | numfmt --to=iec) with the dev profile's program, ran read-only as 10001 and drained on SIGTERM"
