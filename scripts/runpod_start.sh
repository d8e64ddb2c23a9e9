#!/usr/bin/env bash
# Start a training in tmux: the same as deploy/runpod.sh train; without words the one of documents, as it was of old.
set -euo pipefail
[ $# -gt 0 ] || set -- documents
exec bash "$(dirname "${BASH_SOURCE[0]}")/../deploy/runpod.sh" train "$@"
