"""What earlier people teach about a new one: learning it, keeping it, and deciding by it."""
