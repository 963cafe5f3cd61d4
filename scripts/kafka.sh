#!/usr/bin/env bash
# Runs Apache Kafka servers on the loopback interface, for tests, benchmarks and for trying things out.
#
# Not for production: TLS and users only to try clients with. Each server lives in a directory of its own (data, settings, log
# and pid), so any number run side by side, and nothing is ever ended but by the pid in that directory.
set -euo pipefail

readonly HEAP=512m
readonly START_SECONDS_MAX=90
readonly STOP_SECONDS_MAX=30
# Below the range from which the kernel takes ports of outgoing connections, so that a server which is stopped and started
# again finds its port free.
readonly AUTO_PORT_MIN=20000
readonly AUTO_PORT_MAX=31999
readonly AUTO_PORT_TRIES=5

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/millstream/kafka

usage() {
  cat <<'END'
Apache Kafka on 127.0.0.1, one node or several, for tests and for trying things out.

Usage: scripts/kafka.sh COMMAND [OPTIONS]

Commands:
  start     start the server of DIR and wait until it answers; prints its address. Does nothing if it runs.
            What an earlier start stored in DIR is still there.
  stop      end it cleanly and wait for the end
  kill      end it as a power cut would (SIGKILL)
  status    say whether it answers, its address, its pid and its memory; exit code 0 yes, 3 no
  fetch     only fetch the jars (start does it by itself, once)
  run CLASS [ARGUMENT]...
            run a Java class of Kafka's, for example its tools (see the last example)

Options:
  --dir DIR      where the server lives (default: data/kafka of this checkout)
  --port N       port on 127.0.0.1 (default: what DIR had before, else 9092); "auto" takes a free one.
                 The controller listens on the next port.
  --join DIR     another broker of the cluster whose first server is in DIR; that one is the only controller
  --replicas N   replicas of Kafka's own topics, 1 to 3 (default 1); for a first server that others will join
  --advertise P  the port that clients are told; a proxy of yours listens there
  --secure P     a listener with TLS (its own certificate) on port P and one with SASL (PLAIN, user mill, password stream)
                 on the next port, beside the open one; "auto" takes two free ones
  --while PID    a server for the process PID: when that has ended, the server is killed and DIR is deleted

Examples:
  scripts/kafka.sh start                                      # 127.0.0.1:9092, kept in data/kafka
  cargo run --release -- up --kafka 127.0.0.1:9092            # … and the system on top of it
  kcat -b 127.0.0.1:9092 -L                                   # what is in it
  scripts/kafka.sh stop

  scripts/kafka.sh start --port auto --dir /var/tmp/second    # another one; prints its address
  scripts/kafka.sh kill --dir /var/tmp/second

  scripts/kafka.sh start --dir /var/tmp/k1 --port auto --replicas 3               # a cluster of three brokers
  scripts/kafka.sh start --dir /var/tmp/k2 --port auto --join /var/tmp/k1
  scripts/kafka.sh start --dir /var/tmp/k3 --port auto --join /var/tmp/k1

  scripts/kafka.sh run org.apache.kafka.tools.TopicCommand --bootstrap-server 127.0.0.1:9092 --list

The jars come from Maven Central by scripts/kafka/pom.xml into ~/.cache/millstream/kafka (54 MB, fetched once).
END
}

fail() {
  echo "kafka.sh: $*" >&2
  exit 1
}

# ---------------------------------------------------------------------------------------------------------------- jars

# Prints the directory of the jars and fetches them first if need be. It appears under its name only when it is whole.
jars() {
  local sum dir part
  sum=$(sha256sum "$HERE/kafka/pom.xml")
  dir=$CACHE/${sum:0:16}
  if [ ! -d "$dir" ]; then
    command -v mvn >/dev/null || fail "Maven is missing (Debian: apt-get install maven)"
    mkdir -p "$CACHE"
    (
      flock 9
      [ ! -d "$dir" ] || exit 0
      echo "kafka.sh: fetching Kafka's jars, once …" >&2
      part=$dir.part
      rm -rf "$part"
      mvn -q -B -Dstyle.color=never -f "$HERE/kafka/pom.xml" dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$part" >&2
      mv "$part" "$dir"
    ) 9>"$CACHE/.lock"
  fi
  echo "$dir"
}

# -------------------------------------------------------------------------------------------------------------- server

# The pid of the server of DIR, if it runs. The command line is compared too: after a crash the number in the file may
# belong to somebody else.
pid_of_server() {
  local pid
  [ -r "$DIR/pid" ] || return 1
  pid=$(<"$DIR/pid")
  [ -n "$pid" ] && tr '\0' '\n' 2>/dev/null <"/proc/$pid/cmdline" | grep -qxF -- "$DIR/server.properties" || return 1
  echo "$pid"
}

bootstrap() {
  sed -n 's|^listeners=.*PLAINTEXT://\([^,]*\).*|\1|p' "$DIR/server.properties"
}

# Whether a broker answers a metadata request (version 4, about no topic) with itself in the list. A listening port alone
# is not enough: a broker that is still fenced listens too, but knows of no broker.
answers() {
  local host=${1%:*} port=${1##*:} reply
  exec 8<>"/dev/tcp/$host/$port" || return 1
  printf '\x00\x00\x00\x14\x00\x03\x00\x04\x00\x00\x00\x01\x00\x05ready\x00\x00\x00\x00\x00' >&8
  # size (4), correlation id (4), throttle time (4), number of brokers (4)
  reply=$(timeout 2 head -c 16 <&8 | od -An -v -tx1 | tr -d ' \n')
  exec 8<&- 8>&-
  [ "${#reply}" -eq 32 ] && [ "${reply:24:8}" != 00000000 ]
} 2>/dev/null

free_port() {
  local try port
  for ((try = 0; try < 200; try++)); do
    port=$(((RANDOM * 32768 + RANDOM) % (AUTO_PORT_MAX - AUTO_PORT_MIN) / 2 * 2 + AUTO_PORT_MIN))
    if ! (exec 8<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && ! (exec 8<>"/dev/tcp/127.0.0.1/$((port + 1))") 2>/dev/null; then
      echo "$port"
      return
    fi
  done
  fail "found no free port between $AUTO_PORT_MIN and $AUTO_PORT_MAX"
}

# What says who the server is: the first of a cluster is broker and controller, one that joins is a broker.
write_role() {
  local port=$1 controller
  if [ -z "$JOIN" ]; then
    cat <<END
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))${SECURE:+,TLS://127.0.0.1:$SECURE,SASL://127.0.0.1:$((SECURE + 1))}
advertised.listeners=PLAINTEXT://127.0.0.1:${ADVERTISE:-$port},CONTROLLER://127.0.0.1:$((port + 1))${SECURE:+,TLS://127.0.0.1:$SECURE,SASL://127.0.0.1:$((SECURE + 1))}
controller.quorum.bootstrap.servers=127.0.0.1:$((port + 1))
END
  else
    controller=$(sed -n 's/^controller.quorum.bootstrap.servers=//p' "$JOIN/server.properties")
    # The port is this server's alone on the machine, so the number is this broker's alone in the cluster.
    cat <<END
process.roles=broker
node.id=$port
listeners=PLAINTEXT://127.0.0.1:$port
advertised.listeners=PLAINTEXT://127.0.0.1:${ADVERTISE:-$port}
controller.quorum.bootstrap.servers=$controller
END
  fi
}

# The settings differ from Kafka's defaults only where a small cluster or a quick test needs it.
write_settings() {
  local port=$1
  {
    write_role "$port"
    cat <<END
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL,SASL:SASL_PLAINTEXT
controller.listener.names=CONTROLLER
log.dirs=$DIR/log

# A topic that nobody created is an error: who needs one creates it.
auto.create.topics.enable=false

# As many as there are brokers.
offsets.topic.replication.factor=${REPLICAS:-1}
transaction.state.log.replication.factor=${REPLICAS:-1}
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=${REPLICAS:-1}
share.coordinator.state.topic.min.isr=1

# Fewer files to make: a start and a first commit take a fraction of a second.
offsets.topic.num.partitions=4
transaction.state.log.num.partitions=1
share.coordinator.state.topic.num.partitions=1
log.cleaner.dedupe.buffer.size=16777216

# After a kill the controller lets the broker in again only when the killed one's session has ended (default 9 s).
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500

# Consumers get their partitions at once, and tests may let them time out quickly.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
END
    [ -z "$SECURE" ] || cat <<END

# One listener with TLS (a certificate that nobody has reason to trust) and one with users.
listener.name.tls.ssl.keystore.location=$DIR/tls.p12
listener.name.tls.ssl.keystore.password=millstream
listener.name.sasl.sasl.enabled.mechanisms=PLAIN
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_mill="stream";
END
  } >"$DIR/server.properties"
}

format() {
  [ ! -e "$DIR/log/meta.properties" ] || return 0
  local cluster standalone=--standalone
  cluster=$(head -c 16 /dev/urandom | base64 | tr '+/' 'Aa' | tr -d '=')
  if [ -n "$JOIN" ]; then
    cluster=$(sed -n 's/^cluster.id=//p' "$JOIN/log/meta.properties")
    standalone=''
  fi
  # shellcheck disable=SC2086
  java -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$JARS/*" kafka.tools.StorageTool format $standalone \
    --cluster-id "$cluster" \
    --config "$DIR/server.properties" >>"$DIR/kafka.log" 2>&1
}

# What the log says of a failed start, in one line.
first_cause() {
  { grep -m1 '^Caused by: ' "$DIR/kafka.log" || grep -m1 -E 'Exception|ERROR' "$DIR/kafka.log" || tail -n 1 "$DIR/kafka.log"; } |
    sed 's/^Caused by: //'
}

# Runs the server and waits until it answers. Returns 1 if it ended before it did.
launch() {
  local pid address deadline
  address=$(bootstrap)
  setsid java -Xmx$HEAP -XX:+UseSerialGC -Djava.awt.headless=true -Dorg.slf4j.simpleLogger.showDateTime=true \
    -Dorg.slf4j.simpleLogger.dateTimeFormat="yyyy-MM-dd'T'HH:mm:ss.SSS" \
    -cp "$JARS/*" kafka.Kafka "$DIR/server.properties" >>"$DIR/kafka.log" 2>&1 </dev/null 7<&- &
  pid=$!
  disown
  echo "$pid" >"$DIR/pid"
  deadline=$((SECONDS + START_SECONDS_MAX))
  until answers "$address"; do
    kill -0 "$pid" 2>/dev/null || { rm -f "$DIR/pid"; return 1; }
    if [ $SECONDS -ge $deadline ]; then
      kill -KILL "$pid"
      rm -f "$DIR/pid"
      fail "the server did not answer within $START_SECONDS_MAX s; its log is $DIR/kafka.log"
    fi
    sleep 0.1
  done
}

# Ends the server and deletes DIR when the process PID has ended, however that came.
watch_process() {
  setsid bash -c '
    while kill -0 "$1" 2>/dev/null; do sleep 1; done
    "$2" kill --dir "$3" && rm -rf "$3"' watch "$1" "$HERE/kafka.sh" "$DIR" >/dev/null 2>&1 </dev/null 7<&- &
  disown
}

# Keeps the value of an option in DIR, or takes it from there when it was not given.
remember() {
  local option=$1 file=$DIR/option.$1
  if [ -n "${!option}" ]; then
    echo "${!option}" >"$file"
  elif [ -s "$file" ]; then
    printf -v "$option" %s "$(<"$file")"
  fi
}

start() {
  local port=$PORT try
  mkdir -p "$DIR"
  DIR=$(cd "$DIR" && pwd)
  [[ $DIR != *[[:space:]]* ]] || fail "the path of --dir must not contain spaces: '$DIR'"
  exec 7>"$DIR/.lock"
  flock 7
  if pid_of_server >/dev/null; then
    [ -z "$PORT" ] || [ "$PORT" = auto ] || [ "$(bootstrap)" = "127.0.0.1:$PORT" ] ||
      fail "the server in $DIR runs already, on $(bootstrap)"
    bootstrap
    return
  fi
  JARS=$(jars)
  command -v java >/dev/null || fail "Java is missing (Debian: apt-get install openjdk-17-jre-headless)"
  if [ -s "$DIR/server.properties" ] && { [ -z "$port" ] || [ "$port" = auto ]; }; then
    port=$(bootstrap)
    port=${port##*:}
  fi
  remember JOIN
  # Whichever broker is asked first makes Kafka's own topics.
  [ -n "$REPLICAS" ] || [ -z "$JOIN" ] || [ ! -s "$JOIN/option.REPLICAS" ] || REPLICAS=$(<"$JOIN/option.REPLICAS")
  remember REPLICAS
  remember ADVERTISE
  [ "$SECURE" != auto ] || SECURE=$(free_port)
  remember SECURE
  [ -z "$SECURE" ] || [ -s "$DIR/tls.p12" ] ||
    keytool -genkeypair -keystore "$DIR/tls.p12" -storetype PKCS12 -storepass millstream -keyalg EC -dname CN=localhost \
      -ext san=ip:127.0.0.1 -validity 3650 >>"$DIR/kafka.log" 2>&1 || fail "keytool made no certificate (see $DIR/kafka.log)"
  [ -z "$WHILE" ] || watch_process "$WHILE"
  for ((try = 1; ; try++)); do
    if [ "$port" = auto ]; then
      write_settings "$(free_port)"
    else
      write_settings "${port:-9092}"
    fi
    : >"$DIR/kafka.log"
    format || fail "formatting the storage failed: $(first_cause) (all of it: $DIR/kafka.log)"
    ! launch || break
    # Somebody else may have taken the port between our look and our bind.
    [ "$port" = auto ] && [ $try -lt $AUTO_PORT_TRIES ] && grep -q 'Address already in use' "$DIR/kafka.log" ||
      fail "the server ended at its start: $(first_cause) (all of it: $DIR/kafka.log)"
    rm -rf "$DIR/log"
  done
  bootstrap
}

# Ends the server with a signal and waits until it is gone.
end() {
  local signal=$1 pid deadline
  [ -d "$DIR" ] || return 0
  exec 7>"$DIR/.lock"
  flock 7
  if ! pid=$(pid_of_server); then
    rm -f "$DIR/pid"
    return 0
  fi
  kill "-$signal" "$pid"
  deadline=$((SECONDS + STOP_SECONDS_MAX))
  while pid_of_server >/dev/null; do
    [ $SECONDS -lt $deadline ] || fail "pid $pid did not end within $STOP_SECONDS_MAX s"
    sleep 0.05
  done
  rm -f "$DIR/pid"
}

status() {
  local pid
  if pid=$(pid_of_server) && answers "$(bootstrap)"; then
    echo "answers on $(bootstrap), pid $pid, $(awk '/^VmRSS/ {printf "%d MB", $2 / 1024}' "/proc/$pid/status"), in $DIR"
  elif [ -n "${pid:-}" ]; then
    echo "runs (pid $pid) but does not answer on $(bootstrap); its log is $DIR/kafka.log"
    exit 3
  else
    echo "does not run in $DIR"
    exit 3
  fi
}

# ----------------------------------------------------------------------------------------------------------- arguments

COMMAND=${1:-}
[ $# -eq 0 ] || shift
case $COMMAND in
  '' | -h | --help | help) usage; exit 0 ;;
  run)
    [ $# -gt 0 ] || fail "which class? See --help."
    JARS=$(jars)
    exec java -Xmx256m -XX:+UseSerialGC -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -cp "$JARS/*" "$@"
    ;;
esac

DIR=$HERE/../data/kafka PORT='' WHILE='' JOIN='' REPLICAS='' ADVERTISE='' SECURE=''
while [ $# -gt 0 ]; do
  case $1 in
    -h | --help) usage; exit 0 ;;
    --dir | --port | --while | --join | --replicas | --advertise | --secure)
      [ $# -ge 2 ] && [ -n "$2" ] || fail "$1 needs a value. See --help."
      case $1 in --dir) DIR=$2 ;; --port) PORT=$2 ;; --while) WHILE=$2 ;; --join) JOIN=$2 ;; --replicas) REPLICAS=$2 ;; --advertise) ADVERTISE=$2 ;; --secure) SECURE=$2 ;; esac
      shift 2
      ;;
    *) fail "'$1' is not an option. See --help." ;;
  esac
done
[ -z "$PORT" ] || [ "$PORT" = auto ] || { [[ $PORT =~ ^[0-9]{1,5}$ ]] && [ "$PORT" -ge 1 ] && [ "$PORT" -le 65534 ]; } ||
  fail "--port '$PORT': a number from 1 to 65534, or auto"
[ -z "$WHILE" ] || { [[ $WHILE =~ ^[0-9]+$ ]] && kill -0 "$WHILE" 2>/dev/null; } || fail "--while '$WHILE': no such process"
[ -z "$JOIN" ] || [ -s "$JOIN/log/meta.properties" ] || fail "--join '$JOIN': no server was started there"
[[ $SECURE =~ ^(auto|[0-9]{0,5})$ ]] || fail "--secure '$SECURE': a port, or auto"
[[ $ADVERTISE =~ ^[0-9]{0,5}$ ]] || fail "--advertise '$ADVERTISE': a port"
[[ $REPLICAS =~ ^[1-3]?$ ]] || fail "--replicas '$REPLICAS': a number from 1 to 3"
[ -z "$JOIN" ] || JOIN=$(cd "$JOIN" && pwd)
[ ! -d "$DIR" ] || DIR=$(cd "$DIR" && pwd)

case $COMMAND in
  start) start ;;
  stop) end TERM ;;
  kill) end KILL ;;
  status) status ;;
  fetch) jars ;;
  *) fail "'$COMMAND' is not a command. See --help." ;;
esac
