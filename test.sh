#!/usr/bin/env bash
# Checks everything: installs what the tests need, then format, lints, dependencies, documentation, all tests and the
# instruction counts.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

readonly CARGO_DENY_VERSION=0.20.2
# A test that hangs ends here instead of never.
readonly TEST_MINUTES_MAX=30

CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/millstream

usage() {
  cat <<'END'
Usage: ./test.sh [STAGE]

  (nothing)             everything below, in this order
  setup                 install what the tests need, each only if it is missing:
                        Debian packages, Kafka's jars, Python and Node.js packages, cargo-deny, kubeconform
  lint                  format, clippy, licences and sources of dependencies, Kubernetes manifests, documentation
  test [ARGUMENT]...    the tests; arguments go to `cargo test --workspace`
  instructions [accept] instructions of the broker's hot paths, compared with the accepted figures in
                        broker/benches/instructions/baseline.json; `accept` replaces these

Examples:
  ./test.sh
  ./test.sh test --test kafka_outage            # one file of tests
  ./test.sh test -p codec -- round_trip         # one crate, tests by name

Debian packages go into the system (with sudo, unless you are root). The rest goes to ~/.cache/millstream, ~/.cargo and
./target and is reused.
END
}

# ------------------------------------------------------------------------------------------------------------- progress

clock() {
  printf '%d:%02d' $(($1 / 60)) $(($1 % 60))
}

# Runs a command as a stage: says when it began, how it ended and what it took.
stage() {
  local name=$1 begin=$SECONDS code=0
  shift
  printf '[%6s] ▶ %s\n' "$(clock $begin)" "$name"
  # In a shell of its own, because `set -e` does not hold inside a condition.
  set +e
  (
    set -e
    "$@"
  )
  code=$?
  set -e
  if [ $code -ne 0 ]; then
    printf '[%6s] ✘ %s, after %s, exit code %d\n' "$(clock $SECONDS)" "$name" "$(clock $((SECONDS - begin)))" $code
    exit $code
  fi
  printf '[%6s] ✔ %s (%s)\n' "$(clock $SECONDS)" "$name" "$(clock $((SECONDS - begin)))"
}

note() {
  printf '         %s\n' "$*"
}

# ---------------------------------------------------------------------------------------------------------------- setup

# Each line: the Debian package, and how to see that it is there.
needed_packages() {
  local check package
  while read -r package check; do
    bash -c "$check" >/dev/null 2>&1 || echo "$package"
  done <<'END'
build-essential          command -v cc && command -v make
cmake                    command -v cmake
perl                     command -v perl
git                      command -v git
curl                     command -v curl
openjdk-17-jre-headless  command -v java
maven                    command -v mvn
mosquitto                command -v mosquitto || test -x /usr/sbin/mosquitto
mosquitto-clients        command -v mosquitto_pub && command -v mosquitto_sub
kcat                     command -v kcat
jq                       command -v jq
util-linux               command -v prlimit
chromium                 command -v chromium
python3                  command -v python3
python3-venv             python3 -c 'import ensurepip, venv'
valgrind                 command -v valgrind
prometheus               command -v promtool
END
  if [ -n "$(node_projects)" ]; then
    command -v node >/dev/null || echo nodejs
    command -v npm >/dev/null || echo npm
  fi
}

debian_packages() {
  local packages as_root=''
  packages=$(needed_packages | sort -u | tr '\n' ' ')
  if [ -z "${packages// /}" ]; then
    note "all there"
    return
  fi
  command -v apt-get >/dev/null || {
    note "missing: what Debian calls $packages; please install it, there is no apt-get here"
    return 1
  }
  [ "$(id -u)" -eq 0 ] || as_root=sudo
  note "installing $packages"
  # mosquitto's and Prometheus' packages would start servers. Tests start their own on ports of their own.
  local policy=/usr/sbin/policy-rc.d made_policy=''
  if [[ $packages =~ mosquitto|prometheus ]] && [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
    $as_root chmod +x $policy
    made_policy=yes
    # shellcheck disable=SC2064
    trap "$as_root rm -f $policy" EXIT
  fi
  # shellcheck disable=SC2086
  apt_install "$as_root" $packages
  if [ -n "$made_policy" ] && [ -d /run/systemd/system ]; then
    $as_root systemctl disable mosquitto.service prometheus.service || true
  fi
}

apt_install() {
  local as_root=$1
  shift
  # The package lists may be old or missing: fetch them only if it does not work without.
  $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null 2>&1 || {
    $as_root apt-get update -qq
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
  }
}

kafka_jars() {
  note "$(scripts/kafka.sh fetch)"
}

python_packages() {
  note "$(scripts/python.sh -c 'import sys, paho.mqtt; print(sys.prefix, "with paho-mqtt", paho.mqtt.__version__)')"
}

# Directories with a package-lock.json: tests that are written for Node.js.
node_projects() {
  git ls-files --cached --others --exclude-standard -- '*package-lock.json' ':!bench-results' | xargs -r -n1 dirname
}

node_packages() {
  local project
  for project in $(node_projects); do
    if [ ! -e "$project/node_modules/.package-lock.json" ] ||
      [ "$project/package-lock.json" -nt "$project/node_modules/.package-lock.json" ]; then
      # The browser is Debian's: playwright need not bring one.
      PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --prefix "$project" --no-audit --no-fund --silent
      touch "$project/node_modules/.package-lock.json"
    fi
    note "$project"
  done
}

# Prints the directory in which cargo-deny is.
cargo_deny_dir() {
  echo "$CACHE/cargo-deny-$CARGO_DENY_VERSION/bin"
}

cargo_deny() {
  local dir
  dir=$(cargo_deny_dir)
  if [ ! -x "$dir/cargo-deny" ]; then
    # Unoptimised: it builds in less than half the time and runs for two seconds.
    CARGO_PROFILE_DEV_DEBUG=0 cargo install --quiet --locked --debug --root "${dir%/bin}" --version "$CARGO_DENY_VERSION" cargo-deny
  fi
  note "$("$dir/cargo-deny" --version)"
}

kubernetes_tools() {
  command -v go >/dev/null || {
    note "none: kubeconform is built by Go, and there is no Go here"
    return
  }
  note "$(scripts/kubernetes.sh fetch)"
}

setup() {
  stage "Debian packages" debian_packages
  stage "Apache Kafka's jars" kafka_jars
  stage "Python packages" python_packages
  stage "Node.js packages" node_packages
  stage "cargo-deny" cargo_deny
  stage "kubeconform and Kubernetes' schemas" kubernetes_tools
}

# ----------------------------------------------------------------------------------------------------------------- lint

dependencies() {
  local checks='bans licenses sources'
  PATH=$(cargo_deny_dir):$PATH
  if timeout 20 git ls-remote --exit-code https://github.com/RustSec/advisory-db HEAD >/dev/null 2>&1; then
    checks="advisories $checks"
  else
    note "known vulnerabilities are NOT checked: https://github.com/RustSec/advisory-db cannot be reached from here"
  fi
  # shellcheck disable=SC2086
  cargo deny --log-level error check --hide-inclusion-graph $checks
}

manifests() {
  command -v go >/dev/null || {
    note "k8s/ is NOT checked: kubeconform is built by Go, and there is no Go here"
    return
  }
  scripts/kubernetes.sh check k8s/*.yaml
}

lint() {
  stage "format" cargo fmt --all --check
  stage "clippy" cargo clippy --workspace --all-targets --locked -- -D warnings
  stage "dependencies: licences, bans, sources, advisories" dependencies
  stage "Kubernetes manifests" manifests
  stage "measured: summaries, goals and README" python3 -B bench-results/tests.py
  stage "documentation" env RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked
}

# ---------------------------------------------------------------------------------------------------------------- tests

tests() {
  stage "build the tests" cargo test --workspace --locked --no-run "$@"
  stage "tests" timeout --foreground "${TEST_MINUTES_MAX}m" cargo test --workspace --locked "$@"
}

# --------------------------------------------------------------------------------------------------------- instructions

instructions() {
  local bench=(cargo bench --quiet --locked -p broker --profile instructions --bench instructions)
  stage "build the instruction counts" "${bench[@]}" --no-run
  stage "instruction counts" "${bench[@]}" -- "$@"
}

case ${1:-} in
  '') setup; lint; tests; instructions ;;
  setup | lint) [ $# -eq 1 ] || { usage >&2; exit 2; }; "$1" ;;
  test) shift; tests "$@" ;;
  instructions) shift; instructions "$@" ;;
  -h | --help) usage; exit 0 ;;
  *) usage >&2; exit 2 ;;
esac
printf '[%6s] done\n' "$(clock $SECONDS)"
