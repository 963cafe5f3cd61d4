#!/usr/bin/env bash
# Measures this broker and its peers on this machine, in turns, and leaves everything behind that is needed to judge the
# figures: raw records, commands, commit, machine, versions and a summary.
#
# The tool is loadgen's `mqtt-measure`; it measures any broker. Each measure gets a broker of its own, started for it
# alone and ended by its pid. The brokers take turns within a round, so that a machine that changes its mind in between
# (a neighbour, the clock rate) changes it for all of them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly PORT=24883
readonly HTTP_PORT=24884
readonly PORT_5=24885

ROUNDS=3
BROKERS='millstream mosquitto rumqttd'
MEASURES='idle fan-out pairs topics persisted'
SECONDS_EACH=10
MACHINE=''

usage() {
  cat <<'END'
Usage: bench-results/run.sh [OPTIONS]

  --rounds N          repetitions of all but "persisted"; the summary takes the median (default 3)
  --brokers "A B"     of: millstream mosquitto rumqttd (default: all)
  --measures "A B"    of: idle fan-out pairs topics persisted (default: all)
  --seconds N         how long each CPU measure runs (default 10)
  --machine NAME      what to call this machine (default: made from its processor)

Results go to bench-results/<date>-<machine>/. All of it takes about 40 minutes and wants the machine to itself.
Needs: mosquitto, Java and Maven (./test.sh setup installs them), 19,000 open files (ulimit -n).
END
}

while [ $# -gt 0 ]; do
  case $1 in
    --rounds) ROUNDS=$2; shift 2 ;;
    --brokers) BROKERS=$2; shift 2 ;;
    --measures) MEASURES=$2; shift 2 ;;
    --seconds) SECONDS_EACH=$2; shift 2 ;;
    --machine) MACHINE=$2; shift 2 ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done

# What each broker can be asked for: rumqttd needs 50 KB a client and looks at every filter at the first publish to a
# topic, so it gets less and the summary says so.
clients_of() { case $1 in rumqttd) echo 2000 ;; *) echo 18000 ;; esac; }
topics_of() { case $1 in rumqttd) echo 1000 10000 ;; *) echo 10000 100000 1000000 ;; esac; }

wants() { [[ " $MEASURES " == *" $1 "* ]]; }

# ------------------------------------------------------------------------------------------------------------- binaries

ulimit -n "$(ulimit -Hn)"
[ "$(ulimit -n)" -ge 19000 ] || { echo "run.sh: $(ulimit -n) open files are too few; 19,000 are needed" >&2; exit 2; }

cargo build --release --locked -p millstream -p loadgen --bins
MEASURE=$PWD/target/release/mqtt-measure
MILLSTREAM=$PWD/target/release/millstream
MOSQUITTO=$(command -v mosquitto || echo /usr/sbin/mosquitto)
RUMQTTD=$PWD/target/peers/release/rumqttd-peer
if [[ " $BROKERS " == *" rumqttd "* ]]; then
  cargo build --release --locked --manifest-path bench-results/peers/rumqttd/Cargo.toml --target-dir target/peers
fi

if [ -z "$MACHINE" ]; then
  model=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)
  MACHINE=$(echo "$(nproc) cores ${model:-$(uname -m)}" | sed 's/(R)//g; s/(TM)//g; s/ CPU//; s/ Processor//; s/@ //' |
    tr '[:upper:]' '[:lower:]' | tr -cs 'a-z0-9.\n' - | sed 's/-$//')
fi
RESULTS=$PWD/bench-results/$(date +%F)-$MACHINE
mkdir -p "$RESULTS"
SCRATCH=$(mktemp -d)
RAW=$RESULTS/raw.jsonl
: >"$RAW"
exec > >(tee "$RESULTS/run.txt") 2>&1

{
  echo "date:      $(date -u +%FT%TZ)"
  echo "commit:    $(git rev-parse HEAD)$(git diff --quiet HEAD -- . ':!bench-results/2*' || echo ', with changes that are not committed')"
  echo "command:   bench-results/run.sh --rounds $ROUNDS --brokers \"$BROKERS\" --measures \"$MEASURES\" --seconds $SECONDS_EACH"
  echo "processor: $(nproc) × $(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)"
  echo "memory:    $(awk '/^MemTotal/ {printf "%.1f GiB", $2 / 1048576}' /proc/meminfo)"
  echo "kernel:    $(uname -sr), $(. /etc/os-release && echo "$PRETTY_NAME")"
  echo "rustc:     $(rustc --version)"
  echo "mosquitto: $($MOSQUITTO -h | head -n 1)"
  echo "rumqttd:   $(sed -n 's/^version = "\(.*\)"/\1/p' bench-results/peers/rumqttd/Cargo.toml) (crates.io, release build)"
  echo "kafka:     $(sed -n 's|.*<kafka.version>\(.*\)</kafka.version>.*|\1|p' scripts/kafka/pom.xml), $(java -version 2>&1 | head -n 1)"
} | tee "$RESULTS/machine.txt"

# -------------------------------------------------------------------------------------------------------------- brokers

BROKER_PID=''
KAFKA_DIR=''

end_broker() {
  [ -n "$BROKER_PID" ] || return 0
  kill -TERM "$BROKER_PID" 2>/dev/null || true
  for _ in $(seq 100); do
    kill -0 "$BROKER_PID" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL "$BROKER_PID" 2>/dev/null || true
  wait "$BROKER_PID" 2>/dev/null || true
  BROKER_PID=''
}

end_kafka() {
  [ -n "$KAFKA_DIR" ] || return 0
  scripts/kafka.sh kill --dir "$KAFKA_DIR"
  rm -rf "$KAFKA_DIR"
  KAFKA_DIR=''
}

trap 'end_broker; end_kafka; rm -rf "$SCRATCH"' EXIT

# Starts a broker and waits until it listens. More arguments go to ours.
start_broker() {
  local broker=$1
  shift
  local log=$RESULTS/$broker.log
  case $broker in
    millstream)
      "$MILLSTREAM" broker --mqtt 127.0.0.1:$PORT --http 127.0.0.1:$HTTP_PORT --log warn "$@" >"$log" 2>&1 & ;;
    mosquitto)
      sed "s/@PORT@/$PORT/" bench-results/peers/mosquitto/mosquitto.conf >"$SCRATCH/mosquitto.conf"
      chmod -R a+rX "$SCRATCH"
      "$MOSQUITTO" -c "$SCRATCH/mosquitto.conf" >"$log" 2>&1 & ;;
    rumqttd)
      sed "s/@PORT@/$PORT/; s/@PORT_5@/$PORT_5/" bench-results/peers/rumqttd/rumqttd.toml >"$SCRATCH/rumqttd.toml"
      "$RUMQTTD" "$SCRATCH/rumqttd.toml" >"$log" 2>&1 & ;;
    *) echo "run.sh: unknown broker $broker" >&2; exit 2 ;;
  esac
  BROKER_PID=$!
  for _ in $(seq 300); do
    if (exec 8<>/dev/tcp/127.0.0.1/$PORT) 2>/dev/null; then
      sleep 1
      return
    fi
    kill -0 "$BROKER_PID" 2>/dev/null || break
    sleep 0.1
  done
  echo "run.sh: $broker does not listen: $(tail -n 3 "$log")" >&2
  exit 1
}

# One measure on the broker that runs: measure ROUND BROKER MEASURE [OPTIONS]. A broker that fails it is a result too.
measure() {
  local round=$1 broker=$2 record
  shift 2
  if record=$("$MEASURE" "$@" --broker 127.0.0.1:$PORT --pid "$BROKER_PID" --name "$broker" 2>"$SCRATCH/said"); then
    record "${record%\}},\"round\":$round}"
  else
    record "{\"measure\":\"$1\",\"broker\":\"$broker\",\"round\":$round,\"command\":\"$*\",\"failed\":\"$(tr '"\n' "' " <"$SCRATCH/said")\"}"
  fi
  echo "  $(tail -n 1 "$SCRATCH/said")   [$*]"
}

record() {
  echo "$1" >>"$RAW"
}

alone() {
  start_broker "$2"
  measure "$@"
  end_broker
}

in_turns() {
  local round broker topics
  for ((round = 1; round <= ROUNDS; round++)); do
    echo "round $round of $ROUNDS"
    for broker in $BROKERS; do
      ! wants idle || alone $round "$broker" idle --clients "$(clients_of "$broker")"
    done
    for burst in 1 100; do
      for broker in $BROKERS; do
        ! wants fan-out || alone $round "$broker" fan-out --burst $burst --seconds "$SECONDS_EACH"
      done
    done
    for broker in $BROKERS; do
      ! wants pairs || alone $round "$broker" pairs --seconds "$SECONDS_EACH"
    done
    for broker in $BROKERS; do
      ! wants topics || for topics in $(topics_of "$broker"); do
        alone $round "$broker" topics --topics "$topics" --seconds "$SECONDS_EACH"
      done
    done
  done
}

# ------------------------------------------------------------------------------------------------------------ persisted

cpu_seconds_of() {
  awk '{sub(/.*\) /, ""); print ($12 + $13) / 100}' "/proc/$1/stat"
}

# Ours on a fresh Kafka on the same machine: what was acknowledged must be in Kafka.
persisted() {
  local bootstrap kafka_pid before after stored broker_anonymous
  KAFKA_DIR=$SCRATCH/kafka
  bootstrap=$(scripts/kafka.sh start --port auto --dir "$KAFKA_DIR")
  kafka_pid=$(<"$KAFKA_DIR/pid")
  start_broker millstream --kafka "$bootstrap"
  before=$(cpu_seconds_of "$kafka_pid")
  measure 1 millstream persisted "$@"
  after=$(cpu_seconds_of "$kafka_pid")
  broker_anonymous=$(awk '/^Anonymous:/ {print $2 * 1024}' "/proc/$BROKER_PID/smaps_rollup")
  stored=$(scripts/kafka.sh run org.apache.kafka.tools.GetOffsetShell --bootstrap-server "$bootstrap" 2>/dev/null |
    awk -F: '$1 !~ /^__/ {sum += $3} END {print sum + 0}')
  record "{\"measure\":\"stored\",\"broker\":\"millstream\",\"command\":\"$*\",\"records_in_kafka\":$stored,\"kafka_cpu_s\":$(awk "BEGIN {print $after - $before}"),\"broker_anonymous_bytes_after\":$broker_anonymous}"
  echo "  $stored records in Kafka, which used $(awk "BEGIN {print $after - $before}") s of CPU"
  end_broker
  end_kafka
}

all_persisted() {
  echo "persisted in Kafka, load and Kafka on the same cores"
  persisted --rate 83333 --seconds 60 --protocol 5.0
  persisted --rate 120000 --seconds 60 --protocol 5.0
  persisted --rate 200000 --seconds 20 --protocol 5.0
  persisted --rate 83333 --seconds 30 --publishers 1000 --protocol 5.0
}

[[ ! " $MEASURES " =~ \ (idle|fan-out|pairs|topics)\  ]] || in_turns
! wants persisted || all_persisted
python3 bench-results/summary.py "$RAW" "$RESULTS/machine.txt" >"$RESULTS/summary.md"
find "$RESULTS" -name '*.log' -empty -delete
echo "summary: $RESULTS/summary.md"
