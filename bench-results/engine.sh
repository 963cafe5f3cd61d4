#!/usr/bin/env bash
# Measures this broker's engine with `millstream load` against the goals that it has, and leaves everything behind that is
# needed to judge the figures: a report of every run with its histograms, commands, commit, machine, versions and a summary.
#
# Every run gets a broker of its own, started for it alone and ended by its pid. What is compared with each other (this
# broker, mosquitto, bare writes, one thread and two) takes turns within a round, and every second round goes backwards, so
# that a machine that changes its mind in between (a neighbour, the clock rate) changes it for all of them. A run that fails
# is a result: what failed is in the summary, and the others go on.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. bench-results/common.sh

readonly ALL_MEASURES='idle connect fan-out-bursts fan-out-one pairs wildcard retained slow-reader workers simulated persisted backends'
readonly LONG_MEASURES='mixed-10m'

# What a run may take beyond the time that it measures: connecting, warming up, waiting for what is on its way.
readonly BESIDES_SECONDS_MAX=120

# A Kafka that has just started compiles itself for half a minute, which takes most of a core.
readonly KAFKA_WARM_UP_SECONDS=35

# How long the backends may take for what was acknowledged last.
readonly BACKENDS_SECONDS_MAX=60

# Records of ten minutes at 83,333 and 150,000 messages a second, and as much again to be safe.
readonly LONG_DISK_GIB=40

ROUNDS=3
MEASURES=''
SECONDS_EACH=10
LONG=false
ADD=false
BUILD=true
MACHINE=''

usage() {
  cat <<END
Measures this broker's engine, beside mosquitto and beside bare writes where that says something.

Usage: bench-results/engine.sh [OPTIONS]

  --measures "A B"    which (default: all but mixed-10m):
                        idle            memory of a client: 18,000 over TCP                       25 s a round
                        connect         CPU of a connect: 18,000 at once, and 3,000 a second      40 s
                        fan-out-bursts  CPU of a delivery, 1 to 1,000, bursts of 100              40 s
                        fan-out-one     the same one at a time, beside a bare write of it         40 s
                        pairs           300 pairs, QoS 1: CPU at equal rates, highest rates      100 s
                        wildcard        a million filters with + and #: CPU of a publish, and
                                        the lookup alone                                          80 s
                        retained        a million retained topics: memory, a late subscriber      10 s
                        slow-reader     what the others notice of one that reads nothing          65 s
                        workers         highest rates with one thread and with two                50 s
                        simulated       a million idle clients without sockets                    10 s
                        persisted       QoS 1 acknowledged by a real Kafka, 1,000 publishers     330 s
                        backends        through a real Kafka, chat, IoT and dashboard, and back  330 s
                        mixed-10m       ten million simulated clients for ten minutes (--long)   660 s
  --rounds N          repetitions; the summary gives least, median and most (default $ROUNDS)
  --seconds N         how long a run measures (default $SECONDS_EACH; persisted and backends 60, with --long 600; mixed-10m 600)
  --long              persisted and backends measure 600 s and are not repeated, and mixed-10m is measured too: an hour more
  --add               into today's results, in place of earlier ones of the same measures; without it they are begun anew
  --no-build          run what is built, as it is
  --machine NAME      what to call this machine (default: made from its processor)

Examples:
  bench-results/engine.sh                                          # all of it, 45 minutes
  bench-results/engine.sh --measures "idle pairs" --rounds 1       # a look, 2 minutes
  bench-results/engine.sh --measures persisted --long --add        # 23 minutes, into the results of the first
  bench-results/engine.py bench-results/DIRECTORY                  # the summary again, also of what was interrupted

Results go to bench-results/<date>-<machine>-engine/. It wants the machine to itself: whatever else runs is in the figures.
Needs: mosquitto, and for persisted Java and Maven (./test.sh setup installs them), 19,000 open files (ulimit -n), 3 GB of
memory (mixed-10m: 6), and for --long ${LONG_DISK_GIB} GiB where temporary files are (TMPDIR).
END
}

SECONDS_GIVEN=''
while [ $# -gt 0 ]; do
  case $1 in
    --rounds | --measures | --seconds | --machine)
      [ $# -ge 2 ] && [ -n "$2" ] || { echo "$SCRIPT: $1 needs a value. See --help." >&2; exit 2; }
      case $1 in
        --rounds) ROUNDS=$2 ;;
        --measures) MEASURES=$2 ;;
        --seconds) SECONDS_GIVEN=$2 ;;
        --machine) MACHINE=$2 ;;
      esac
      shift 2 ;;
    --long) LONG=true; shift ;;
    --add) ADD=true; shift ;;
    --no-build) BUILD=false; shift ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
  esac
done
for number in "$ROUNDS" "${SECONDS_GIVEN:-1}"; do
  [[ $number =~ ^[1-9][0-9]{0,3}$ ]] || { echo "$SCRIPT: --rounds and --seconds are numbers from 1 to 9999, not '$number'" >&2; exit 2; }
done
all_known "$MEASURES" "$ALL_MEASURES $LONG_MEASURES"
if $LONG; then
  MEASURES=${MEASURES:-$ALL_MEASURES $LONG_MEASURES}
else
  MEASURES=${MEASURES:-$ALL_MEASURES}
  [[ " $MEASURES " != *" mixed-10m "* ]] || { echo "$SCRIPT: mixed-10m takes eleven minutes; say --long" >&2; exit 2; }
fi
SECONDS_EACH=${SECONDS_GIVEN:-$SECONDS_EACH}
PERSISTED_SECONDS=${SECONDS_GIVEN:-60}
! $LONG || PERSISTED_SECONDS=${SECONDS_GIVEN:-600}

wants() { [[ " $MEASURES " == *" $1 "* ]]; }

# ------------------------------------------------------------------------------------------------------------- measures

# The runs of a measure, one a line: what varies, who is measured, and the command line of `millstream load` without what
# all have in common.
runs_of() {
  local broker variant rate seconds="--warm-up 1 --seconds $SECONDS_EACH"
  case $1 in
    idle)
      for broker in millstream mosquitto; do
        echo "tcp $broker idle --clients 18000 --connect-rate 6000 --warm-up 1 --seconds 2"
      done ;;
    connect)
      for broker in millstream mosquitto; do
        echo "storm $broker connect-storm --clients 18000 --seconds 1"
        echo "steady $broker connect --clients 18000 --connect-rate 3000 --seconds 1"
      done ;;
    fan-out-bursts)
      for broker in millstream mosquitto; do
        echo "bursts $broker fan-out --clients 1001 --rate 100 --burst 100 $seconds"
      done
      # More than mosquitto can take: what the bursts cost when they come one upon the other.
      echo "more-bursts millstream fan-out --clients 1001 --rate 1000 --burst 100 $seconds" ;;
    fan-out-one)
      for broker in millstream millstream-1 bare-write; do
        echo "one $broker fan-out --clients 1001 --rate 60 --burst 1 $seconds"
      done ;;
    pairs)
      # In and out together 20,000 and 35,000 a second.
      for rate in 10000 17500; do
        for broker in millstream mosquitto; do
          echo "rate-$rate $broker pairs --clients 600 --rate $rate $seconds"
        done
      done
      for variant in 1 50; do
        for broker in millstream mosquitto; do
          echo "window-$variant $broker pairs --clients 600 --highest --window $variant $seconds"
        done
      done ;;
    wildcard)
      echo "publish millstream run bench-results/scenarios/wildcard-million.toml $seconds"
      echo "alone lookup 1000000" ;;
    retained) echo "million millstream run bench-results/scenarios/retained-million.toml" ;;
    slow-reader)
      # Equal but for the one that does not read. So much, and so long before it counts, that the broker then holds all that
      # it may hold for it.
      echo "all-read millstream fan-out --rate 100 --payload-bytes 4000 --warm-up 20 --seconds $SECONDS_EACH"
      echo "one-does-not millstream slow-reader --rate 100 --payload-bytes 4000 --warm-up 20 --seconds $SECONDS_EACH" ;;
    workers)
      for variant in 1 2; do
        echo "pairs-$variant simulated pairs --simulated --threads $variant --clients 600 --highest --window 50 $seconds"
      done ;;
    simulated) echo "idle simulated idle --simulated --clients 1000000 --connect-rate storm --warm-up 1 --seconds 2" ;;
    persisted)
      seconds="--warm-up $KAFKA_WARM_UP_SECONDS --seconds $PERSISTED_SECONDS"
      echo "even millstream-kafka persisted --rate 83333 $seconds"
      echo "burst-4 millstream-kafka persisted --rate 83333 --burst 4 $seconds"
      echo "burst-10 millstream-kafka persisted --rate 150000 --burst 10 --warm-up $KAFKA_WARM_UP_SECONDS --seconds ${SECONDS_GIVEN:-60}" ;;
    backends)
      seconds="--warm-up $KAFKA_WARM_UP_SECONDS --seconds $PERSISTED_SECONDS"
      echo "quarter millstream-up backends --rate 20000 --burst 4 $seconds"
      echo "burst-4 millstream-up backends --rate 83333 --burst 4 $seconds"
      echo "burst-10 millstream-up backends --rate 83333 --burst 10 $seconds" ;;
    mixed-10m)
      echo "mixed simulated mixed --simulated --clients 10000000 --rate 83333 --seconds ${SECONDS_GIVEN:-600} --warm-up 10 --keep-alive 300 --connect-rate storm" ;;
  esac
}

# Whether a measure is repeated.
is_repeated() {
  case $1 in
    mixed-10m) false ;;
    persisted | backends) ! $LONG ;;
  esac
}

# How long one of its runs measures.
seconds_of() {
  case $1 in
    mixed-10m) echo "${SECONDS_GIVEN:-600}" ;;
    persisted | backends) echo "$PERSISTED_SECONDS" ;;
    *) echo "$SECONDS_EACH" ;;
  esac
}

# ------------------------------------------------------------------------------------------------------------- programs

raise_open_files 19000
if { wants persisted || wants backends; } && $LONG; then
  free=$(df --output=avail -k "$SCRATCH" | tail -n 1)
  [ "$free" -ge $((LONG_DISK_GIB * 1048576)) ] ||
    { echo "$SCRIPT: $((free / 1048576)) GiB are free in ${TMPDIR:-/tmp}; --long needs $LONG_DISK_GIB (set TMPDIR)" >&2; exit 2; }
fi

readonly BARE_WRITE=$PEERS/release/bare-write-peer
readonly LOOKUP=$PWD/target/release/examples/lookup
if $BUILD; then
  cargo build --release --locked -p millstream
  ! wants fan-out-one ||
    cargo build --release --locked --manifest-path bench-results/peers/bare-write/Cargo.toml --target-dir "$PEERS"
  ! wants wildcard || cargo build --release --locked -p topic --example lookup
fi
printf '[broker]\nworkers = 1\n' >"$SCRATCH/one-worker.toml"

# Starts who is measured; false when it does not listen in time. A simulation has no broker.
start_broker() {
  local log=$SCRATCH/$1.log
  : >"$log"
  case $1 in
    millstream) start_millstream "$log" ;;
    millstream-1) start_millstream "$log" --config "$SCRATCH/one-worker.toml" ;;
    mosquitto) start_mosquitto "$log" ;;
    bare-write) start "$log" "$BARE_WRITE" 127.0.0.1:$PORT ;;
    millstream-kafka) start_kafka 2>"$log" && start_millstream "$log" --kafka "$KAFKA_ADDRESS" || return 1 ;;
    millstream-up)
      rm -rf "$SCRATCH/data"
      start_kafka 2>"$log" || return 1
      start "$log" "$MILLSTREAM" up --kafka "$KAFKA_ADDRESS" --data "$SCRATCH/data" --mqtt 127.0.0.1:$PORT \
        --http 127.0.0.1:$HTTP_PORT --log warn ;;
    simulated) return 0 ;;
  esac
  broker_listens
}

cpu_seconds_of() {
  awk '{sub(/.*\) /, ""); print ($12 + $13) / 100}' "/proc/$1/stat"
}

records_in_kafka() {
  scripts/kafka.sh run org.apache.kafka.tools.GetOffsetShell --bootstrap-server "$KAFKA_ADDRESS" 2>/dev/null |
    awk -F: '$1 !~ /^__/ {sum += $3} END {print sum + 0}'
}

# A metric of the node, added up over its labels; false when there is none of that name.
metric() {
  curl -s "http://127.0.0.1:$HTTP_PORT/metrics" |
    awk -v name="$1" '{sub(/[{ ].*/, "", $1)} $1 == name {sum += $NF; found = 1} END {if (!found) exit 1; print sum + 0}'
}

# What was acknowledged of a stream, by a report: acknowledged FILE STREAM.
acknowledged() {
  python3 -c 'import json, sys; print(sum(each["acknowledged"] for each in json.load(open(sys.argv[1]))["streams"] if each["name"] == sys.argv[2]))' "$1" "$2"
}

# What the backends had still to read at the end of the run, and what they have stored when they have read all of it:
# effects REPORT. A lag of 0 that is looked at while a consumer begins anew says nothing, so what was acknowledged is waited
# for too; when that does not come, what there is after BACKENDS_SECONDS_MAX is what is stored.
effects() {
  local lag left messages readings chat telemetry began=$SECONDS
  lag=$(metric millstream_consumer_lag_records) || return 1
  chat=$(acknowledged "$1" chat) && telemetry=$(acknowledged "$1" telemetry) || return 1
  while :; do
    messages=$(metric millstream_chat_messages_total) && readings=$(metric millstream_iot_readings_total) || return 1
    # A consumer that does not know its lag has not read all.
    left=$(metric millstream_consumer_lag_records) || left=1
    [ "$left" != 0 ] || [ "$messages" -lt "$chat" ] || [ "$readings" -lt "$telemetry" ] || break
    [ $((SECONDS - began)) -lt $BACKENDS_SECONDS_MAX ] || break
    sleep 1
  done
  printf ',"lag":%s,"lag_left":%s,"messages_stored":%s,"readings_stored":%s' "$lag" "$left" "$messages" "$readings"
}

# ----------------------------------------------------------------------------------------------------------------- runs

[ -n "$MACHINE" ] || MACHINE=$(machine_name)
readonly RESULTS=bench-results/$(date +%F)-$MACHINE-engine
readonly RUNS=$RESULTS/runs.jsonl
mkdir -p "$RESULTS/runs"
if $ADD && [ -s "$RUNS" ]; then
  echo >>"$RESULTS/machine.txt"
  for measure in $MEASURES; do
    sed -i "/\"measure\":\"$measure\"/d" "$RUNS"
    rm -f "$RESULTS/runs/$measure".*
  done
else
  rm -rf "$RESULTS/runs" && mkdir "$RESULTS/runs"
  : >"$RUNS"
  : >"$RESULTS/machine.txt"
  : >"$RESULTS/run.txt"
fi

{
  machine_lines "bench-results/engine.sh --measures \"$MEASURES\" --rounds $ROUNDS${SECONDS_GIVEN:+ --seconds $SECONDS_GIVEN}$(! $LONG || echo ' --long')$(! $ADD || echo ' --add')$($BUILD || echo ' --no-build')"
  echo "rustc:     $(rustc --version)"
  echo "ours:      $("$MILLSTREAM" --version), its defaults; millstream-1 with one worker"
  echo "mosquitto: $(mosquitto_version); peers/mosquitto/mosquitto.conf: 64 in flight, 10,000 waiting, nothing on disk, TCP_NODELAY"
  ! wants fan-out-one || echo "bare write: peers/bare-write: the PUBLISH as it came, one write a subscriber, nothing else"
  { ! wants persisted && ! wants backends; } ||
    echo "kafka:     $(sed -n 's|.*<kafka.version>\(.*\)</kafka.version>.*|\1|p' scripts/kafka/pom.xml), one node by scripts/kafka.sh, empty for each run; $(java -version 2>&1 | head -n 1)"
} | tee -a "$RESULTS/machine.txt"
exec > >(tee -a "$RESULTS/run.txt") 2>&1

# One run: run ROUND MEASURE VARIANT BROKER OPTION...
run() {
  local round=$1 measure=$2 variant=$3 broker=$4 code=0 began=$SECONDS file target=() kafka_before kafka='' effects=''
  shift 4
  file=runs/$measure.$variant.$broker.$round.json
  : >"$SCRATCH/said"
  : >"$SCRATCH/report.txt"
  if [ "$broker" = lookup ]; then
    file=${file%.json}.txt
    "$LOOKUP" "$@" >"$RESULTS/$file" 2>"$SCRATCH/said" || code=$?
    BROKER_ENDED=false
  elif start_broker "$broker"; then
    [ "$broker" = simulated ] || target=(--broker "127.0.0.1:$PORT" --pid "$BROKER_PID")
    [ -z "$KAFKA_PID" ] || kafka_before=$(cpu_seconds_of "$KAFKA_PID")
    # It ends with the broker.
    [ "$measure" != retained ] ||
      python3 -B bench-results/engine.py --watch "$BROKER_PID" "$RESULTS/${file%.json}.memory.txt" &
    load $(($(seconds_of "$measure") + BESIDES_SECONDS_MAX)) "$RESULTS/$file" "$@" "${target[@]}" --name "$broker" || code=$?
    [ "$broker" != millstream-up ] || effects=$(effects "$RESULTS/$file") || { effects=''; code=4; echo "the node does not tell what its backends stored" >>"$SCRATCH/said"; }
    if [ -n "$KAFKA_PID" ] && kill -0 "$KAFKA_PID" 2>/dev/null; then
      kafka=$(printf ',"kafka_cpu_s":%s' "$(awk "BEGIN {print $(cpu_seconds_of "$KAFKA_PID") - $kafka_before}")")
      kafka+=$(printf ',"in_kafka":%s' "$(records_in_kafka)")
    fi
  else
    code=3
    { echo 'the broker does not listen:'; tail -n 2 "$SCRATCH/$broker.log"; } >"$SCRATCH/said"
  fi
  end_broker
  end_kafka
  [ -s "$RESULTS/$file" ] || [ "$code" -eq 3 ] || say_why
  [ -s "$RESULTS/$file" ] || file=''
  printf '{"round":%d,"measure":"%s","variant":"%s","broker":"%s","options":"%s","file":"%s","exit_code":%d,"seconds":%d,"broker_ended":%s,"said":%s,"broker_said":%s%s}\n' \
    "$round" "$measure" "$variant" "$broker" "$*" "$file" "$code" $((SECONDS - began)) $BROKER_ENDED \
    "$(quoted "$(tail -n 3 "$SCRATCH/said")")" "$(quoted "$(tail -n 2 "$SCRATCH/$broker.log" 2>/dev/null | cut -c 1-300)")" "$kafka$effects" >>"$RUNS"
  printf '  %-14s %-12s %-16s %3d s  exit code %d%s\n' "$measure" "$variant" "$broker" $((SECONDS - began)) "$code" \
    "$([ "$code" -eq 0 ] || echo ": $(first_reason)")"
}

for ((round = 1; round <= ROUNDS; round++)); do
  echo "round $round of $ROUNDS"
  for measure in $MEASURES; do
    [ $round -eq 1 ] || is_repeated "$measure" || continue
    mapfile -t lines < <(runs_of "$measure" | if [ $((round % 2)) -eq 1 ]; then cat; else tac; fi)
    for line in "${lines[@]}"; do
      # The options are words without spaces.
      # shellcheck disable=SC2086
      run $round "$measure" $line
    done
  done
done

python3 -B bench-results/engine.py "$RESULTS" >"$RESULTS/summary.md"
echo "summary: $RESULTS/summary.md"
