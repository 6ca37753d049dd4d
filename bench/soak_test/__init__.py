"""The parts of the soak (bench/soak.py)."""
