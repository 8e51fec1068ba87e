# shellcheck shell=bash
# Shared by the scripts beside it; sourced, never run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
# Outside the checkout, so that a fresh clone finds what an earlier one installed.
cache=${XDG_CACHE_HOME:-${HOME:?}/.cache}/streamfleet

say() { printf '\033[1m==> %s\033[0m\n' "$*" >&2; }
die() { printf 'error: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# key FILE... : a short name for the contents of requirement files.
key() { cat "$@" | if have sha256sum; then sha256sum; else shasum -a 256; fi | cut -c1-12; }

# Debian or Ubuntu with the right to install packages.
can_apt() { [[ $(id -u) == 0 ]] && have apt-get; }

# apt_install PACKAGE... : those that are missing, in one transaction.
apt_install() {
    local missing=() package
    for package in "$@"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    say "installing Debian packages: ${missing[*]}"
    # The lock's timeout lets two first runs on one machine queue instead of failing.
    local apt=(apt-get -qq -o DPkg::Lock::Timeout=600)
    DEBIAN_FRONTEND=noninteractive "${apt[@]}" update >&2
    DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y --no-install-recommends "${missing[@]}" >&2
}

# once DIRECTORY COMMAND... : runs COMMAND with DIRECTORY.partial as its last argument and moves the result into place, so
# that an interrupted installation is never taken for a complete one. A lock serialises checkouts that share the cache.
# Steps are joined by && here and in the commands: where a caller tests the status, `set -e` is off.
once() {
    local directory=$1
    shift
    [[ -d $directory ]] && return 0
    mkdir -p "$(dirname "$directory")"
    (
        # macOS has no flock; there only `make run` comes here, and one person's.
        if have flock; then flock 9; fi
        [[ -d $directory ]] && exit 0
        rm -rf "$directory.partial" && mkdir -p "$directory.partial" && "$@" "$directory.partial" >&2 && mv "$directory.partial" "$directory"
    ) 9>"$directory.lock"
}

# A python3 whose venv module works: Debian splits ensurepip off, pyenv does not.
venv_python() {
    local python
    for python in "${PYTHON:-}" /usr/bin/python3 python3; do
        if "${python:-false}" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            command -v "$python"
            return
        fi
    done
    return 1
}

# make_venv REQUIREMENTS DIRECTORY
make_venv() {
    local python
    python=$(venv_python) || die "no python3 (3.10 or newer) with the venv module: install python3-venv"
    # A virtual environment that is moved keeps the old path only in its scripts; programs here run `bin/python -m …`.
    "$python" -m venv "$2" && "$2/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$1"
}
