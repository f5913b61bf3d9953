(time PMAN_SEEDS=${1:-300} timeout ${2:-120} cargo test -p pointsman-sim -- --nocapture $3) 2>&1 | grep -vE "Compiling|   at |^ +[0-9]+: |^running|^$|0 passed" | tail -${4:-80}
