"""A real OpenStack control plane on this machine, for tests: see README.md beside this file."""
