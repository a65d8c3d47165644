#!/bin/sh
# Becomes the test server that TEMPORAL_TEST_SERVER names, beside a watcher that ends it when whoever started it is
# gone, however that died.
starter=$PPID
{
  while kill -0 "$starter" && kill -0 "$$"; do sleep 0.5; done
  kill "$$"
} </dev/null >/dev/null 2>&1 &
exec "$TEMPORAL_TEST_SERVER" "$@"
