#!/usr/bin/env bash
# Puts this broker beside its peers with `millstream load`: the same scenarios on the same cores, one broker at a time, in
# turns and repeated, and leaves everything behind that is needed to judge the figures: a report of every run with its
# histograms, commands, commit, machine, versions, configurations, and a summary.
#
# Every run gets a broker of its own, started for it alone and ended by its pid. The brokers take turns at each scenario,
# so that a machine that changes its mind in between (a neighbour, the clock rate) changes it for all of them. A broker
# that fails a scenario is a result: what failed is in the summary, and the others go on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. bench-results/common.sh

readonly ALL_BROKERS='millstream mosquitto rumqttd rmqtt aedes mochi'
readonly MORE_BROKERS='hivemq'
readonly ALL_SCENARIOS='idle connect-storm fan-out fan-out-bursts pairs pairs-highest fan-in wildcard shared retained'
readonly MAIN_SCENARIOS='idle connect-storm fan-out fan-out-bursts pairs pairs-highest fan-in'

readonly PORT_5=24885

readonly RUN_SECONDS_MAX=45

ROUNDS=2
BROKERS=$ALL_BROKERS
SCENARIOS=$ALL_SCENARIOS
SECONDS_EACH=5
BUILD=true
MACHINE=''

usage() {
  cat <<END
Usage: bench-results/peers.sh [OPTIONS]

  --rounds N          repetitions; the summary gives least, median and most (default $ROUNDS)
  --brokers "A B"     of: $ALL_BROKERS $MORE_BROKERS
                      (default: the first six)
  --scenarios "A B"   of: $ALL_SCENARIOS
                      (default: all)
  --seconds N         how long each run measures (default $SECONDS_EACH)
  --quick             one round of: $MAIN_SCENARIOS
  --no-build          run what earlier calls built, as it is
  --machine NAME      what to call this machine (default: made from its processor)

Results go to bench-results/<date>-<machine>-peers/. Two rounds of all take about 20 minutes, --quick about 6, and want
the machine to themselves; building the peers for the first time takes some minutes more.
Needs: mosquitto (./test.sh setup installs it), Node.js and npm for aedes, Go for mochi, a JDK and Maven for hivemq, and
19,000 open files (ulimit -n). A peer that cannot be built is left out, and the summary says so.
END
}

while [ $# -gt 0 ]; do
  case $1 in
    --rounds) ROUNDS=$2; shift 2 ;;
    --brokers) BROKERS=$2; shift 2 ;;
    --scenarios) SCENARIOS=$2; shift 2 ;;
    --seconds) SECONDS_EACH=$2; shift 2 ;;
    --quick) ROUNDS=1; SCENARIOS=$MAIN_SCENARIOS; shift ;;
    --no-build) BUILD=false; shift ;;
    --machine) MACHINE=$2; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done

all_known "$BROKERS" "$ALL_BROKERS $MORE_BROKERS"
all_known "$SCENARIOS" "$ALL_SCENARIOS"

# ------------------------------------------------------------------------------------------------------------ scenarios

# Some need tens of kilobytes for a client, or take no more than 1,000 connections a second: they get fewer clients, and
# the summary has the number beside the figure.
idle_clients_of() { case $1 in rumqttd | mochi) echo 2000 ;; *) echo 18000 ;; esac; }
storm_clients_of() { case $1 in rumqttd) echo 1000 ;; *) echo 10000 ;; esac; }

# The command line of a scenario for a broker, without what all have in common.
scenario() {
  local seconds=$SECONDS_EACH
  case $1 in
    idle) echo "idle --clients $(idle_clients_of "$2") --connect-rate 6000 --warm-up 1 --seconds 2" ;;
    connect-storm) echo "connect-storm --clients $(storm_clients_of "$2") --warm-up 0 --seconds 1" ;;
    fan-out) echo "fan-out --clients 501 --rate 60 --burst 1 --warm-up 1 --seconds $seconds" ;;
    fan-out-bursts) echo "fan-out --clients 501 --rate 100 --burst 100 --warm-up 1 --seconds $seconds" ;;
    pairs) echo "pairs --clients 600 --rate 5000 --warm-up 1 --seconds $seconds" ;;
    pairs-highest) echo "pairs --clients 600 --highest --window 50 --warm-up 1 --seconds $seconds" ;;
    fan-in) echo "fan-in --clients 501 --rate 10000 --warm-up 1 --seconds $seconds" ;;
    wildcard) echo "wildcard --rate 5000 --warm-up 1 --seconds $seconds" ;;
    shared) echo "shared --rate 5000 --warm-up 1 --seconds $seconds" ;;
    retained) echo "retained --seconds $seconds" ;;
  esac
}

# ------------------------------------------------------------------------------------------------------------- programs

raise_open_files 19000

# Builds or fetches what a broker needs. Only this script does, never test.sh.
get() {
  case $1 in
    millstream) cargo build --release --locked -p millstream ;;
    mosquitto) [ -x "$MOSQUITTO" ] || { echo "there is no $MOSQUITTO"; false; } ;;
    rumqttd | rmqtt)
      cargo build --release --locked --manifest-path "bench-results/peers/$1/Cargo.toml" --target-dir "$PEERS" ;;
    aedes)
      mkdir -p "$PEERS/aedes" && cp bench-results/peers/aedes/* "$PEERS/aedes" &&
        npm ci --prefix "$PEERS/aedes" --no-audit --no-fund --silent ;;
    mochi) go build -C bench-results/peers/mochi -mod=readonly -o "$PEERS/mochi/mochi-peer" . ;;
    hivemq)
      mvn -q -B -Dstyle.color=never -f bench-results/peers/hivemq/pom.xml dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$PEERS/hivemq/jars" &&
        javac -d "$PEERS/hivemq/classes" -cp "$PEERS/hivemq/jars/*" bench-results/peers/hivemq/Peer.java ;;
  esac
}

# One line: the version, where it is from, and what runs it.
version() {
  case $1 in
    millstream) "$MILLSTREAM" --version ;;
    mosquitto) mosquitto_version ;;
    rumqttd | rmqtt)
      echo "$(sed -n 's/^version = "\(.*\)"/\1/p' "bench-results/peers/$1/Cargo.toml" | head -n 1), crates.io, $(rustc --version)" ;;
    aedes) echo "$(sed -n 's/.*"aedes": "\(.*\)".*/\1/p' bench-results/peers/aedes/package.json), npm, Node.js $(node --version)" ;;
    mochi) echo "$(sed -n 's|.*mochi-mqtt/server/v2 ||p' bench-results/peers/mochi/go.mod), Go proxy, $(go version | cut -d ' ' -f 3)" ;;
    hivemq)
      echo "Community Edition $(sed -n 's|.*<version>\(20.*\)</version>.*|\1|p' bench-results/peers/hivemq/pom.xml), Maven Central, $(java -version 2>&1 | head -n 1)" ;;
  esac
}

# One line: how it is configured, where that is more than its own defaults, and where it cannot be as ours.
settings() {
  case $1 in
    millstream) echo "its defaults: 64 in flight, 10,000 waiting, no Kafka" ;;
    mosquitto) echo "peers/mosquitto/mosquitto.conf: 64 in flight, 10,000 waiting, no persistence, TCP_NODELAY" ;;
    rumqttd) echo "peers/rumqttd/rumqttd.toml: its example's values; it waits 1 ms between two connections, keeps at most 10 segments of 100 MB, 100 in flight, and has no bound for a client's queue; MQTT 5.0 on a port of its own" ;;
    rmqtt) echo "peers/rmqtt/src/main.rs: 64 in flight, 10,000 waiting, TCP_NODELAY, retained messages in memory, jemalloc as in its own program, no refusals because the machine is busy" ;;
    aedes) echo "peers/aedes/server.js: its defaults, in memory, TCP_NODELAY; no bounds for what is in flight or waits; one thread; MQTT 3.1.1 only" ;;
    mochi) echo "peers/mochi/main.go: 10,064 in flight and waiting together, at most 8,192 writes pending (its default), everybody allowed, no storage; Go sets TCP_NODELAY" ;;
    hivemq) echo "peers/hivemq/config.xml: in memory, 10,000 waiting, receive maximum 64, no statistics sent; the Java heap as the JVM sizes it" ;;
  esac
}

# Starts a broker; false when it does not listen in time.
start_broker() {
  local log=$SCRATCH/$1.log
  case $1 in
    millstream) start_millstream "$log" ;;
    mosquitto) start_mosquitto "$log" ;;
    rumqttd)
      sed "s/@PORT@/$PORT/; s/@PORT_5@/$PORT_5/" bench-results/peers/rumqttd/rumqttd.toml >"$SCRATCH/rumqttd.toml"
      start "$log" "$PEERS/release/rumqttd-peer" "$SCRATCH/rumqttd.toml" ;;
    rmqtt) start "$log" "$PEERS/release/rmqtt-peer" 127.0.0.1:$PORT ;;
    aedes) start "$log" node "$PEERS/aedes/server.js" $PORT ;;
    mochi) start "$log" "$PEERS/mochi/mochi-peer" 127.0.0.1:$PORT ;;
    hivemq)
      rm -rf "$SCRATCH/hivemq" && mkdir "$SCRATCH/hivemq"
      sed "s/@PORT@/$PORT/" bench-results/peers/hivemq/config.xml >"$SCRATCH/hivemq/config.xml"
      start "$log" java -cp "$PEERS/hivemq/classes:$PEERS/hivemq/jars/*" Peer "$SCRATCH/hivemq" ;;
  esac
  broker_listens
}

# ----------------------------------------------------------------------------------------------------------------- runs

[ -n "$MACHINE" ] || MACHINE=$(machine_name)
readonly RESULTS=bench-results/$(date +%F)-$MACHINE-peers
rm -rf "$RESULTS/runs"
mkdir -p "$RESULTS/runs"
readonly RUNS=$RESULTS/runs.jsonl
: >"$RUNS"

BUILT=''
LEFT_OUT=''
for broker in millstream ${BROKERS//millstream/}; do
  if ! $BUILD || get "$broker" >"$SCRATCH/get.log" 2>&1; then
    [[ " $BROKERS " != *" $broker "* ]] || BUILT="$BUILT $broker"
  elif [ "$broker" = millstream ]; then
    tail -n 20 "$SCRATCH/get.log" >&2
    exit 1
  else
    LEFT_OUT+="$(printf '%-11s left out, it could not be built: %s' "$broker:" "$(tail -n 1 "$SCRATCH/get.log")")"$'\n'
  fi
done

{
  machine_lines "bench-results/peers.sh --rounds $ROUNDS --brokers \"$BROKERS\" --scenarios \"$SCENARIOS\" --seconds $SECONDS_EACH$($BUILD || echo ' --no-build')"
  echo
  for broker in $BUILT; do
    printf '%-11s %s\n' "$broker:" "$(version "$broker")"
    printf '%-11s %s\n' '' "$(settings "$broker")"
  done
  printf '%s' "$LEFT_OUT"
} | tee "$RESULTS/machine.txt"
exec > >(tee "$RESULTS/run.txt") 2>&1

# One run: run ROUND BROKER SCENARIO.
run() {
  local round=$1 broker=$2 name=$3 port=$PORT options code=0 began=$SECONDS file
  [[ $broker-$name != rumqttd-shared ]] || port=$PORT_5
  options=$(scenario "$name" "$broker")
  file=runs/$name.$broker.$round.json
  : >"$SCRATCH/said"
  if start_broker "$broker"; then
    # The options are words without spaces.
    # shellcheck disable=SC2086
    load $RUN_SECONDS_MAX "$RESULTS/$file" $options --broker "127.0.0.1:$port" --pid "$BROKER_PID" --name "$broker" || code=$?
  else
    code=3
    { echo 'the broker does not listen:'; tail -n 2 "$SCRATCH/$broker.log"; } >"$SCRATCH/said"
  fi
  end_broker
  [ -s "$RESULTS/$file" ] || [ "$code" -eq 3 ] || say_why
  [ -s "$RESULTS/$file" ] || file=''
  printf '{"round":%d,"broker":"%s","scenario":"%s","options":"%s","file":"%s","exit_code":%d,"seconds":%d,"broker_ended":%s,"said":%s,"broker_said":%s}\n' \
    "$round" "$broker" "$name" "$options" "$file" "$code" $((SECONDS - began)) $BROKER_ENDED \
    "$(quoted "$(tail -n 3 "$SCRATCH/said")")" "$(quoted "$(tail -n 2 "$SCRATCH/$broker.log" | cut -c 1-300)")" >>"$RUNS"
  printf '  %-10s %-15s %3d s  exit code %d%s\n' "$broker" "$name" $((SECONDS - began)) "$code" \
    "$([ "$code" -eq 0 ] || echo ": $(first_reason)")"
}

for ((round = 1; round <= ROUNDS; round++)); do
  echo "round $round of $ROUNDS"
  for name in $SCENARIOS; do
    for broker in $BUILT; do
      run $round "$broker" "$name"
    done
  done
done

python3 -B bench-results/peers.py "$RESULTS" >"$RESULTS/summary.md"
echo "summary: $RESULTS/summary.md"
