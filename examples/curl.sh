#!/usr/bin/env bash
# The same server with nothing but curl: examples/curl.sh [host:port]
set -euo pipefail
url=http://${1:-localhost:8000}

call() {
  echo "$ curl -s ${*@Q}"
  curl -sS --fail-with-body --max-time 10 "$@"
  echo
}

call "$url/v2"
call "$url/v2/models/text_stats"
call "$url/v2/models/text_stats/infer" \
  -d '{"inputs":[{"name":"TEXT","datatype":"BYTES","shape":[1,1],"data":["A shoal of fish"]}]}'
call "$url/v2/models/text_stats/stats"
