#!/usr/bin/env bash
# What `make run` does without a terminal: start the daemon, ask the guide one question, say how to go on.
set -euo pipefail
cd "$(dirname "$0")/.."
question="How do I switch runtime?"
.venv/bin/footplate up
echo
echo "> $question"
.venv/bin/footplate ask "$question" </dev/null
cat <<'EOF'

The daemon is running. Go on with:
  .venv/bin/footplate                      open the terminal
  .venv/bin/footplate ask "What is TTFT?"  ask from the shell
  .venv/bin/footplate status               see what runs
  .venv/bin/footplate down                 stop everything
EOF
