"""Load, faults and benchmarks that anyone can repeat on one machine. Loopback only."""
