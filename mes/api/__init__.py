"""The doors: what HTTP clients see. Views declare, hand over and dump; they decide nothing."""
