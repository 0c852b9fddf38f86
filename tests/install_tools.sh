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

install redis-server redis-server redis
install chromium chromium
install promtool prometheus prometheus # promtool comes with the server
