"""A service of any size, simulated with what was measured of a small one."""
