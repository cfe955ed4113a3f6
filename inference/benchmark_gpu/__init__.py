"""What one GPU does in a second: the parts of scripts/benchmark.sh --gpu."""
