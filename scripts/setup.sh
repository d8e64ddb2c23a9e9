#!/usr/bin/env bash
# Set up a rented machine: the same as deploy/runpod.sh setup.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/../deploy/runpod.sh" setup
