#!/usr/bin/env bash
# scripts/kafka.sh about the test's own Kafka.
case $1 in
  run) exec "$CHECKOUT/scripts/kafka.sh" "$@" ;;
  *) exec "$CHECKOUT/scripts/kafka.sh" "$@" --dir "$KAFKA_DIR" ;;
esac
