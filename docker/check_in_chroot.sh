#!/usr/bin/env bash
# Carries out the Dockerfile's instructions in a clean Debian root, for machines without a container engine.
#
#   docker/check_in_chroot.sh build ROOT             make ROOT with debootstrap, follow the Dockerfile in it
#   docker/check_in_chroot.sh run ROOT [COMMAND...]  run COMMAND (default: CMD) as the image would: its ENTRYPOINT as
#                                                    process 1, its USER, ENV and WORKDIR
#
# It shows that the packages exist, the lock installs, and the user may do what the user must. It does not show that the
# base image suits: Debian stands in for it, so package names, the Python version and the CUDA driver side may differ.
# .dockerignore is not applied.
#
# Environment: DOCKERFILE (default: the project's), SUITE (default: bookworm), MIRROR (default: debootstrap's own).
# RUN_USER (uid:gid, for run: what `docker run --user` would say).
# PIP_CONFIG_FILE, PIP_INDEX_URL, PIP_DEFAULT_TIMEOUT, SSL_CERT_FILE and the *_proxy variables are handed to the build.
#
# Needs root. All mounts live in a mount namespace of their own and are gone when the script ends, so that
# `rm -rf --one-file-system ROOT` is safe afterwards.
set -euo pipefail

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dockerfile=${DOCKERFILE:-$project/Dockerfile}
default_path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
handed_on=()
user=0:0
workdir=/
instructions=0

fail() {
    printf 'check_in_chroot: %s\n' "$*" >&2
    exit 1
}

# One instruction a line: comments dropped, continued lines joined.
instructions_of() {
    awk '/^[[:space:]]*#/ || (/^[[:space:]]*$/ && line == "") { next }
         { line = line $0; if (sub(/\\$/, "", line)) next; print line; line = "" }' "$1"
}

# A JSON array such as ["a", "b"] as shell words.
words_of() {
    python3 -c 'import json, shlex, sys; print(shlex.join(json.loads(sys.argv[1])))' "$1"
}

mount_kernel_files() {
    mount -t proc proc "$root/proc"
    mount -t tmpfs -o mode=755 tmpfs "$root/dev"
    mkdir "$root/dev/shm"
    mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
    mknod -m 666 "$root/dev/null" c 1 3
    mknod -m 666 "$root/dev/zero" c 1 5
    mknod -m 666 "$root/dev/random" c 1 8
    mknod -m 666 "$root/dev/urandom" c 1 9
    ln -s /proc/self/fd "$root/dev/fd"
}

# Network settings of this machine, for the build only: files are copied, variables are handed on.
hand_on_network() {
    local name
    cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
    for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY PIP_INDEX_URL PIP_DEFAULT_TIMEOUT; do
        [[ -v $name ]] && handed_on+=("$name=${!name}")
    done
    if [[ -v PIP_CONFIG_FILE ]]; then
        cp -L "$PIP_CONFIG_FILE" "$root/.check/pip.conf"
        handed_on+=(PIP_CONFIG_FILE=/.check/pip.conf)
    fi
    if [[ -v SSL_CERT_FILE ]]; then
        cp -L "$SSL_CERT_FILE" "$root/.check/ca.pem"
        handed_on+=(PIP_CERT=/.check/ca.pem)
    fi
}

in_root() {
    # The body is one argument: the shell inside reads it, with the ENV lines met so far and no other environment.
    # shellcheck disable=SC2016 # expanded by the shell inside
    chroot --userspec="$user" --groups='' "$root" /usr/bin/env -i PATH="$default_path" "${handed_on[@]}" \
        /bin/sh -c '. /.check/env.sh && cd "$0" && eval "$1"' "$workdir" "$1"
}

copy_into_root() {
    local arguments=("$@") destination source
    [[ $# -ge 2 && $1 != --* ]] || fail "COPY $*: only plain sources and a destination are understood"
    destination=${arguments[-1]}
    unset 'arguments[-1]'
    [[ $destination == */ ]] || fail "COPY to $destination: end the destination with / (a folder)"
    [[ $destination == /* ]] || destination=$workdir/$destination
    mkdir -p "$root$destination"
    for source in "${arguments[@]}"; do
        [[ -e $project/$source ]] || fail "COPY $source: not in $project"
        [[ -d $project/$source ]] && source=$source/.
        cp -r --preserve=mode "$project/$source" "$root$destination"
    done
    find "$root$destination" -name __pycache__ -prune -exec rm -rf {} +
}

follow() {
    local instruction=$1 rest=$2 started=$SECONDS words
    printf '\n== %s %s\n' "$instruction" "$rest"
    case $instruction in
        FROM) ((instructions == 0)) || fail "a second FROM is not understood" ;;
        ENV) printf 'export %s\n' "$rest" >>"$root/.check/env.sh" ;;
        RUN) in_root "$rest" ;;
        COPY) read -r -a words <<<"$rest" && copy_into_root "${words[@]}" ;;
        WORKDIR) workdir=$rest && mkdir -p "$root$workdir" ;;
        USER) user=$rest ;;
        ENTRYPOINT) words_of "$rest" >"$root/.check/entrypoint" ;;
        CMD) words_of "$rest" >"$root/.check/cmd" ;;
        LABEL | HEALTHCHECK) ;;
        *) fail "$instruction is not understood: teach this script, or leave it out of the Dockerfile" ;;
    esac
    instructions=$((instructions + 1))
    printf -- '-- %s s, %s MB\n' "$((SECONDS - started))" "$(du --summarize --one-file-system --block-size=1M "$root" | cut -f1)"
}

build() {
    local instruction rest
    if [[ ! -e $root/etc/debian_version ]]; then
        mkdir -p "$root"
        [[ -z $(ls -A "$root") ]] || fail "$root is neither empty nor a Debian root"
        debootstrap --variant=minbase "${SUITE:-bookworm}" "$root" ${MIRROR:+"$MIRROR"}
    fi
    mkdir "$root/.check" || fail "$root has been built in before; start from a clean root"
    : >"$root/.check/env.sh"
    mount_kernel_files
    hand_on_network
    # Read on descriptor 3, so that no command of the build eats the rest of the Dockerfile.
    while read -r -u 3 instruction rest; do
        # Before FROM, ARG only names the base image, and Debian stands in for it.
        [[ $instruction == ARG && $instructions -eq 0 ]] || follow "$instruction" "$rest"
    done 3< <(instructions_of "$dockerfile")
    printf '%s\n' "$user" >"$root/.check/user"
    printf '%s\n' "$workdir" >"$root/.check/workdir"
}

run() {
    local entrypoint command
    [[ -s $root/.check/workdir ]] || fail "$root has not been built (build $root comes first)"
    mount_kernel_files
    entrypoint=$(cat "$root/.check/entrypoint")
    if (($# > 0)); then
        command=$(printf '%q ' "$@")
    else
        command=$(cat "$root/.check/cmd")
    fi
    user=${RUN_USER:-$(cat "$root/.check/user")}
    # shellcheck disable=SC2016 # expanded by the shell inside
    exec chroot --userspec="$user" --groups='' "$root" /usr/bin/env -i PATH="$default_path" \
        /bin/sh -c '. /.check/env.sh && cd "$0" && eval "exec $1"' "$(cat "$root/.check/workdir")" "$entrypoint $command"
}

[[ ${1:-} == build || ${1:-} == run ]] && [[ $# -ge 2 ]] || fail "usage: $0 build ROOT | run ROOT [COMMAND...]"
[[ $(id -u) -eq 0 ]] || fail "needs root, for chroot and mounts"
if [[ ! -v MIM_CHECK_INNER ]]; then
    MIM_CHECK_INNER=1 exec unshare --mount --pid --fork --kill-child --propagation private -- bash "${BASH_SOURCE[0]}" "$@"
fi
action=$1
root=$(realpath -m "$2")
[[ $root != / ]] || fail "ROOT is this machine's own root"
shift 2
"$action" "$@"
