#!/usr/bin/env bash
# Installs what the tests need and prints where it is, as NAME=VALUE lines for `source`. Everything else goes to stderr.
# Quick when nothing is missing. `tools.sh --where` installs nothing and fails when something is missing.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

python_requirements=$root/tests/aiortc/requirements.txt
fastrtc_requirements=$root/tests/conformance/fastrtc_requirements.txt
node_package=$root/tests/browser/package.json
node_lock=$root/tests/browser/package-lock.json
python_directory=$cache/python-$(key "$python_requirements")
fastrtc_directory=$cache/fastrtc-$(key "$fastrtc_requirements")
node_directory=$cache/node-$(key "$node_package" "$node_lock")

install_python() { make_venv "$python_requirements" "$1"; }
install_fastrtc() { make_venv "$fastrtc_requirements" "$1"; }

install_node() {
    cp "$node_package" "$node_lock" "$1/" && npm --prefix "$1" ci --no-audit --no-fund --loglevel=error
}

# Ubuntu's chromium package is a stub for a snap, which does not start in a container: Playwright's own build there.
browser() {
    local candidate
    for candidate in chromium google-chrome-stable; do
        have "$candidate" && ! grep -qs snap "$(command -v "$candidate")" && command -v "$candidate" && return
    done
    compgen -G "$cache/browsers/chromium-*/chrome-linux*/chrome" | tail -1 | grep .
}

install_browser() {
    if (source /etc/os-release && [[ $ID == debian ]]); then
        apt_install chromium
    else
        say "installing Playwright's Chromium into $cache/browsers"
        PLAYWRIGHT_BROWSERS_PATH=$cache/browsers "$node_directory/node_modules/.bin/playwright-core" install --with-deps chromium >&2
    fi
}

if [[ ${1:-} != --where ]]; then
    can_apt || die "the tests install Debian packages: run them as root on Debian 12 or newer or on Ubuntu, for example in a container. 'make run' and 'make lint' work anywhere."
    apt_install ca-certificates cmake gcc g++ libc6-dev make
    # The store's tests start their own on free ports; the packages' services are not used.
    apt_install redis-server redis-sentinel
    # A TURN server, and a client to try its credentials with.
    apt_install coturn
    # Network namespaces, cables between them, and routes.
    apt_install iproute2
    # Makes keys and signs tokens, as an issuer does that is not this program.
    apt_install openssl
    if ! have node || ! have npm; then apt_install nodejs npm; fi
    venv_python >/dev/null || apt_install python3 python3-venv
    if [[ ! -d $python_directory ]]; then say "installing Python packages into $python_directory"; fi
    once "$python_directory" install_python
    if [[ ! -d $fastrtc_directory ]]; then say "installing FastRTC into $fastrtc_directory"; fi
    once "$fastrtc_directory" install_fastrtc
    if [[ ! -d $node_directory ]]; then say "installing Node packages into $node_directory"; fi
    once "$node_directory" install_node
    browser >/dev/null || install_browser
fi

node=$(command -v node) || die "node is missing: 'make test' installs it"
(($("$node" -p 'process.versions.node.split(".")[0]') >= 18)) || die "node is older than 18, which playwright-core needs"
[[ -d $python_directory ]] || die "$python_directory is missing: 'make test' installs it"
[[ -d $fastrtc_directory ]] || die "$fastrtc_directory is missing: 'make test' installs it"
[[ -d $node_directory ]] || die "$node_directory is missing: 'make test' installs it"
chromium=$(browser) || die "chromium is missing: 'make test' installs it"
cat <<END
STREAMFLEET_TEST_PYTHON=$python_directory/bin/python
STREAMFLEET_TEST_FASTRTC=$fastrtc_directory/bin/python
STREAMFLEET_TEST_NODE=$node
STREAMFLEET_TEST_NODE_MODULES=$node_directory/node_modules
STREAMFLEET_TEST_CHROMIUM=$chromium
END
