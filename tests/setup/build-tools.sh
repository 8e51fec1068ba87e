# shellcheck shell=bash
# Sourced before a build: provides cmake (libopus is built from source) and a C compiler, where they are missing.
source "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# Cargo often lives only in an interactive shell's PATH.
have cargo || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
have cargo || die "Rust is needed and not found: https://rustup.rs installs it in a minute"

install_cmake() {
    make_venv "$root/tests/setup/cmake-requirements.txt" "$1"
}

if ! have cmake || ! have cc; then
    if can_apt; then
        apt_install cmake gcc libc6-dev make
    fi
    if ! have cc; then
        die "a C compiler is needed and not found (install gcc or clang: on Debian and Ubuntu 'apt install build-essential', on Fedora 'dnf install gcc', on macOS 'xcode-select --install')"
    fi
    if ! have cmake; then
        venv_python >/dev/null || die "cmake is needed and not found (on Debian and Ubuntu 'apt install cmake', on macOS 'brew install cmake'; with python3-venv it would be fetched from PyPI)"
        requirements=$root/tests/setup/cmake-requirements.txt
        directory=$cache/cmake-$(key "$requirements")
        say "cmake is missing: installing it from PyPI into $directory"
        once "$directory" install_cmake
        # The console script of a moved environment points at the old path; the real program beside the package does not.
        cmake_bin=$("$directory/bin/python" -c 'import cmake; print(cmake.CMAKE_BIN_DIR)')
        PATH=$cmake_bin:$PATH
    fi
fi
export PATH
