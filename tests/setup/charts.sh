#!/usr/bin/env bash
# The charts' tests: what is generated is not stale, what is rendered is what is committed, values, alerts as Prometheus reads them, images.
# Needs the programs of the stage `build`, and Helm, kubeconform and schemas of tests/setup/kubernetes.sh.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

# Others' resources that the charts make: MODULE VERSION SUM FILE... Each describes itself in its Go module.
foreign=(
    "sigs.k8s.io/gateway-api v1.6.0 h1:735YBRj5NXFrOGX0GoSjwzUIzbz8kiEOfADsqHFmHgE= config/crd/experimental/gateway.networking.k8s.io_httproutes.yaml config/crd/experimental/gateway.networking.k8s.io_udproutes.yaml"
    "github.com/cert-manager/cert-manager v1.21.2 h1:UWgoYM+KLNtRlqmoWOKjKBOBUPVHeepQ6/ac3ERJW68= deploy/crds/cert-manager.io_certificates.yaml"
    "github.com/prometheus-operator/prometheus-operator v0.85.0 h1:M5xLCLEoaW2IJfnuCwFzzpL+jSVQu3KGT84Pye+fW8s= example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml"
)

requirements=$root/tests/charts/requirements.txt
venv=$cache/charts-$(key "$requirements")
install_python() { make_venv "$requirements" "$1"; }
[[ -d $venv ]] || say "installing Python packages into $venv"
once "$venv" install_python
python=$venv/bin/python

tools=$("$root/tests/setup/kubernetes.sh" "$@")
export "${tools?}"

resources=$cache/charts-resources-$(key "$root/tests/charts/crds.py" <(printf '%s\n' "${foreign[@]}"))
# take DIRECTORY : the schemas of others' resources.
take() {
    local go line module version sum files told folder
    go=$("$root/tests/setup/kubernetes.sh" --go) || return
    for line in "${foreign[@]}"; do
        read -r module version sum files <<<"$line"
        told=$(cd "$1" && GOFLAGS=-mod=mod GOSUMDB=off GOWORK=off "$go" mod download -json "$module@$version") &&
            [[ $told == *"\"Sum\": \"$sum\""* ]] || die "$module $version is not $sum: $told"
        folder=$(sed -n 's/^[[:space:]]*"Dir": "\(.*\)",\{0,1\}$/\1/p' <<<"$told")
        # shellcheck disable=SC2086 # words of their own
        (cd "$folder" && "$python" "$root/tests/charts/crds.py" "$1" $files) || return
    done
}
once "$resources" take

# Prometheus' own reader of expressions and rules; its version and the sums of its modules are in go.mod and go.sum.
promql=$cache/charts-promql-$(key "$root"/tests/charts/promql/*)
# build DIRECTORY
build() {
    local go
    go=$("$root/tests/setup/kubernetes.sh" --go) || return
    (cd "$root/tests/charts/promql" &&
        CGO_ENABLED=0 GOTOOLCHAIN=local GOWORK=off GOSUMDB=off GOFLAGS='-trimpath -mod=readonly -buildvcs=false -p=2' \
            nice -n 5 "$go" build -ldflags "-s -w" -o "$1/promql" .)
}
[[ -d $promql ]] || say "building Prometheus' parser into $promql"
once "$promql" build

# This project's own resource is as it is here.
schemas=$(mktemp -d)
trap 'rm -rf "$schemas"' EXIT
cp "$resources"/*.json "$schemas/"
"$python" tests/charts/crds.py "$schemas" crds/streamservices.yaml
export STREAMFLEET_TEST_CRDS=$schemas STREAMFLEET_TEST_PROMQL=$promql/promql PYTHONDONTWRITEBYTECODE=1

"$python" charts/generate --check --helm "$STREAMFLEET_TEST_KUBERNETES/helm"
cd tests/charts
"$python" -m unittest --buffer test_values test_render test_monitoring test_images 2>&1 | tee /dev/stderr |
    "$python" -c '
import re, sys
text = sys.stdin.read()
ran = int((re.search(r"^Ran (\d+) tests?", text, re.M) or [0, 0])[1])
wrong = sum(map(int, re.findall(r"(?:failures|errors)=(\d+)", text)))
good = ran > 0 and wrong == 0 and re.search(r"^OK$", text, re.M)
# As cargo says it, for the summary of all stages.
print("test result: %s. %d passed; %d failed" % ("ok" if good else "FAILED", ran - wrong, wrong))
sys.exit(not good)'
