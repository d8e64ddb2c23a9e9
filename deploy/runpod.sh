#!/usr/bin/env bash
# Train on a rented machine with a GPU: RunPod, or any other Linux machine that you reach by ssh.
#
#   deploy/runpod.sh setup                          look at the GPU, move to the volume, install
#   deploy/runpod.sh train [TARGET] [NAME=VALUE]... start `make TARGET NAME=VALUE...` in tmux; `make all` without words
#   deploy/runpod.sh all [TARGET] [NAME=VALUE]...   both, and wait for the end; the exit code is that of make
#   deploy/runpod.sh logs                           follow the log;  tmux attach -t linemill shows the screen
#
#   MODEL=Qwen/Qwen2.5-Coder-1.5B-Instruct LLM=claude deploy/runpod.sh all
#   deploy/runpod.sh train papers SOURCES=arxiv_papers LLM=gemini MODEL=meta-llama/Llama-3.2-3B-Instruct
#
# Everything lives on the volume, RUNPOD_VOLUME_PATH (/workspace): checkout, environment, models, results, logs. It
# outlives the machine: on the next one `train` with the same words goes on from the newest checkpoint.
#
# Variables: GPU_GB     memory that has to be free on the GPU, 8 unless told otherwise; 0 does without a GPU
#            DISK_GB    room that has to be free on the volume, 20
#            SESSION    name of the tmux session, linemill
# Keys (HF_TOKEN, ANTHROPIC_API_KEY, ...) and the variables of make and train.py are taken from the environment and .env.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
volume=${RUNPOD_VOLUME_PATH:-/workspace}
home=$volume/linemill
gpu_gb=${GPU_GB:-8}
disk_gb=${DISK_GB:-20}
session=${SESSION:-linemill}
state=$home/.runpod

say() { printf 'runpod: %s\n' "$*" >&2; }
fail() {
    say "$*"
    exit 1
}

check_gpu() {
    [ "$gpu_gb" != 0 ] || { say "GPU_GB=0: no GPU is asked for"; return; }
    command -v nvidia-smi >/dev/null || fail "no GPU: there is no nvidia-smi here; GPU_GB=0 does without one"
    local found name total used best=0
    found=$(nvidia-smi --query-gpu=name,memory.total,memory.used --format=csv,noheader,nounits) \
        || fail "nvidia-smi finds no GPU: $found"
    while IFS=, read -r name total used; do
        say "GPU: $name, $(((total - used) / 1024)) of $((total / 1024)) GB are free"
        best=$((total - used > best ? total - used : best))
    done <<<"$found"
    ((best >= gpu_gb * 1024)) || fail "$gpu_gb GB have to be free on a GPU (GPU_GB=$gpu_gb); end what holds them, or rent a larger one"
}

check_disk() {
    [ -d "$volume" ] || fail "$volume: there is no volume; RUNPOD_VOLUME_PATH names it"
    [ -w "$volume" ] || fail "$volume: the volume can not be written to"
    local free
    free=$(df -Pk "$volume" | awk 'NR == 2 {print int($4 / 1048576)}')
    ((free >= disk_gb)) || fail "$volume: $free GB are free, $disk_gb are needed (DISK_GB=$disk_gb)"
}

# The checkout as it is, edited files included, without what git ignores: results on the volume stay.
move_to_volume() {
    case $here/ in "$home"/*) return ;; esac
    mkdir -p "$home"
    if git -C "$here" rev-parse --git-dir >/dev/null 2>&1; then
        git -C "$here" ls-files -z --cached --others --exclude-standard
    else
        (cd "$here" && find . -type f -not -path './.venv/*' -not -path './runs/*' -not -path './data*' -print0)
    fi | tar -C "$here" --null --files-from=- --ignore-failed-read -cf - | tar -C "$home" -xf -
    [ ! -f "$here/.env" ] || install -m 600 "$here/.env" "$home/.env"
    say "everything is in $home now"
}

install_packages() {
    local missing=() name
    for name in git make jq tmux; do command -v "$name" >/dev/null || missing+=("$name"); done
    "${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3 python3-venv)
    [ ${#missing[@]} -gt 0 ] || return 0
    { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; } || fail "not installed: ${missing[*]}; install them first"
    say "installing ${missing[*]}"
    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
}

setup() {
    check_gpu
    check_disk
    install_packages
    move_to_volume
    mkdir -p "$state"
    make -C "$home" --no-print-directory setup
    say "ready; next: deploy/runpod.sh train"
}

is_running() { tmux has-session -t "=$session" 2>/dev/null; }

train() {
    [ -f "$home/Makefile" ] || fail "$home holds no checkout yet; run: deploy/runpod.sh setup"
    ! is_running || fail "session $session is running: tmux attach -t $session, or deploy/runpod.sh logs"
    check_gpu
    [ $# -gt 0 ] || set -- all
    local words log
    words=$(printf '%q ' "$@")
    mkdir -p "$state/logs"
    # The same words after an end that was none: its checkpoints are of the same training.
    local resume=""
    if [ "$(cat "$state/words" 2>/dev/null)" = "$words" ] && [ "$(cat "$state/code" 2>/dev/null)" != 0 ]; then
        resume=1
        say "the last run of these words did not end well; it goes on from its newest checkpoint"
    fi
    log=$state/logs/$(date -u +%Y%m%dT%H%M%SZ).log
    ln -sfn "$log" "$state/log"
    : >"$log"
    printf '%s\n' "$words" >"$state/words"
    rm -f "$state/code"
    # A session of tmux has the environment of tmux's server, not ours: what counts goes with it in a file, which may
    # hold keys, is for nobody else, and removes itself. Models are kept on the volume, too.
    (
        umask 077
        export HF_HOME="${HF_HOME:-$volume/huggingface}" RESUME="$resume"
        {
            printf 'rm -f %q\n' "$state/run.sh"
            export -p
            printf 'cd %q\nmake --no-print-directory %s 2>&1 | tee -a %q\n' "$home" "$words" "$log"
            # shellcheck disable=SC2016  # it is expanded by the script that is written here
            printf 'echo "${PIPESTATUS[0]}" >%q\n' "$state/code"
        } >"$state/run.sh"
    )
    tmux new-session -d -s "$session" -c "$home" "bash $(printf '%q' "$state/run.sh")"
    say "make $words runs in tmux session $session; log: $log; results: $home/runs"
}

# Until the session has ended; then its exit code.
follow() {
    [ -e "$state/log" ] || fail "nothing was started yet: deploy/runpod.sh train"
    tail -n +1 -f "$state/log" &
    local tail=$!
    while is_running; do sleep 1; done
    sleep 1
    kill "$tail" 2>/dev/null || true
    wait "$tail" 2>/dev/null || true
    local code
    code=$(cat "$state/code" 2>/dev/null) || fail "the session ended without a result; run train again to go on"
    [ "$code" = 0 ] || fail "make ended with exit code $code; the log is $(readlink "$state/log")"
    say "done; results: $home/runs"
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
setup) setup ;;
train) train "$@" ;;
all)
    setup
    train "$@"
    follow
    ;;
logs) follow ;;
*)
    sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
