"""Trainings of adapters that people ask the service for: queued, done by a process of their own, and kept."""
