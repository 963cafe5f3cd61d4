# What peers.sh and engine.sh have in common: where things are, the machine, brokers and Kafka as processes, records.
#
# Sourced, with the project's directory as the working directory. Processes are ended by their pids and nothing else is.
# A script that sources this leaves no process and no scratch file behind, however it ends.

readonly SCRIPT=${0##*/}

readonly PORT=24883
readonly HTTP_PORT=24884

readonly PEERS=$PWD/target/peers
readonly MILLSTREAM=target/release/millstream
MOSQUITTO=$(command -v mosquitto || echo /usr/sbin/mosquitto)
readonly MOSQUITTO

# A broker that does not listen by then counts as one that does not start.
readonly START_SECONDS_MAX=20

# A run that takes longer than it may is asked for the report so far, and ended if it does not give it.
readonly REPORT_SECONDS_MAX=10

SCRATCH=$(mktemp -d)
BROKER_PID=''
BROKER_ENDED=false
KAFKA_DIR=''
KAFKA_PID=''
KAFKA_ADDRESS=''
trap 'end_load; end_broker; end_kafka; rm -rf "$SCRATCH"' EXIT

# ------------------------------------------------------------------------------------------------------------ arguments

# Each word of the first must be one of the second.
all_known() {
  local word
  for word in $1; do
    [[ " $2 " == *" $word "* ]] || { echo "$SCRIPT: unknown: $word; known are: $2" >&2; exit 2; }
  done
}

# -------------------------------------------------------------------------------------------------------------- machine

# As many open files as the system lets; at least so many.
raise_open_files() {
  ulimit -n "$(ulimit -Hn)"
  [ "$(ulimit -n)" -ge "$1" ] || { echo "$SCRIPT: $(ulimit -n) open files are too few; $1 are needed" >&2; exit 2; }
}

# A name that can be part of a directory's, made from the processor's.
machine_name() {
  local model
  model=$(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)
  echo "$(nproc) cores ${model:-$(uname -m)}" | sed 's/(R)//g; s/(TM)//g; s/ CPU//; s/ Processor//; s/@ //' |
    tr '[:upper:]' '[:lower:]' | tr -cs 'a-z0-9.\n' - | sed 's/-$//'
}

# The first lines of machine.txt: when, of which commit, by which command, on which machine.
machine_lines() {
  echo "date:      $(date -u +%FT%TZ)"
  # Results that are being written are no changes.
  echo "commit:    $(git rev-parse HEAD)$(git diff --quiet HEAD -- . ':!bench-results/2*' || echo ', with changes that are not committed')"
  echo "command:   $1"
  echo "processor: $(nproc) × $(sed -n 's/^model name[[:space:]]*: //p' /proc/cpuinfo | head -n 1)"
  echo "memory:    $(awk '/^MemTotal/ {printf "%.1f GiB", $2 / 1048576}' /proc/meminfo)"
  echo "kernel:    $(uname -sr), $(. /etc/os-release && echo "$PRETTY_NAME")"
}

mosquitto_version() {
  echo "$("$MOSQUITTO" -h | head -n 1), $(. /etc/os-release && echo "$PRETTY_NAME")"
}

# -------------------------------------------------------------------------------------------------------------- brokers

# Runs a broker in the background, its output in a log: start LOG COMMAND [ARGUMENT]...
start() {
  "${@:2}" >"$1" 2>&1 &
  BROKER_PID=$!
  BROKER_ENDED=false
}

# Ours, with further arguments: start_millstream LOG [ARGUMENT]...
start_millstream() {
  start "$1" "$MILLSTREAM" broker --mqtt 127.0.0.1:$PORT --http 127.0.0.1:$HTTP_PORT --log warn "${@:2}"
}

start_mosquitto() {
  sed "s/@PORT@/$PORT/" bench-results/peers/mosquitto/mosquitto.conf >"$SCRATCH/mosquitto.conf"
  # It changes to a user of its own before it reads that.
  chmod -R a+rX "$SCRATCH"
  start "$1" "$MOSQUITTO" -c "$SCRATCH/mosquitto.conf"
}

# Waits until the broker listens; false when it ends before, or takes too long.
broker_listens() {
  local began=$SECONDS
  while ! (exec 8<>/dev/tcp/127.0.0.1/$PORT) 2>/dev/null; do
    kill -0 "$BROKER_PID" 2>/dev/null || return 1
    [ $((SECONDS - began)) -lt $START_SECONDS_MAX ] || return 1
    sleep 0.05
  done
  sleep 0.3
}

end_broker() {
  [ -n "$BROKER_PID" ] || return 0
  # It keeps nothing that an orderly end could save, and some take seconds for that.
  kill -KILL "$BROKER_PID" 2>/dev/null || true
  wait "$BROKER_PID" 2>/dev/null || true
  BROKER_PID=''
}

# Starts an empty Kafka; KAFKA_ADDRESS and KAFKA_PID say where it is.
start_kafka() {
  KAFKA_DIR=$SCRATCH/kafka
  KAFKA_ADDRESS=$(scripts/kafka.sh start --port auto --dir "$KAFKA_DIR" --while $$) || return 1
  KAFKA_PID=$(<"$KAFKA_DIR/pid")
}

end_kafka() {
  [ -n "$KAFKA_DIR" ] || return 0
  scripts/kafka.sh kill --dir "$KAFKA_DIR" || true
  rm -rf "$KAFKA_DIR"
  KAFKA_DIR='' KAFKA_PID='' KAFKA_ADDRESS=''
}

# ----------------------------------------------------------------------------------------------------------------- runs

# Runs `millstream load`, on the broker that runs if there is one: load SECONDS_MAX FILE OPTION... FILE is where its report
# goes, as JSON; what it prints is in $SCRATCH/report.txt and $SCRATCH/said. BROKER_ENDED says what became of the broker.
load() {
  local seconds_max=$1 file=$2 code=0
  shift 2
  timeout --foreground --signal=INT --kill-after=$REPORT_SECONDS_MAX "$seconds_max" \
    "$MILLSTREAM" load "$@" --quiet --json "$file" >"$SCRATCH/report.txt" 2>"$SCRATCH/said" || code=$?
  [ -z "$BROKER_PID" ] || kill -0 "$BROKER_PID" 2>/dev/null || BROKER_ENDED=true
  return $code
}

# Ends a run that goes on when this script ends. `timeout` is a child of this shell and hands the signal on.
end_load() {
  local pid
  for pid in $(pgrep -P $$ -x timeout); do
    kill -TERM "$pid" 2>/dev/null || true
  done
}

# What a run without a report says, in $SCRATCH/said.
say_why() {
  [ -s "$SCRATCH/said" ] || tail -n 3 "$SCRATCH/report.txt" >"$SCRATCH/said"
}

# The first reason of a run that failed, for the screen.
first_reason() {
  {
    grep -hm 1 -i -e fail -e error -e listen "$SCRATCH/said" "$SCRATCH/report.txt" ||
      # One that could not begin says why in its last line.
      { [ -s "$SCRATCH/report.txt" ] || tail -n 1 "$SCRATCH/said"; }
  } 2>/dev/null | head -n 1 | cut -c 1-150
}

# A string of JSON; what is no text in it goes.
quoted() {
  printf '"%s"' "$(tr -d '\000-\010\013-\037' <<<"$1" | sed 's/\\/\\\\/g; s/"/\\"/g; s/\t/ /g' | paste -sd ' ')"
}
