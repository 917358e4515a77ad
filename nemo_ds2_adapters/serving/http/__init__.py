"""The service's operations over HTTP, and what surrounds them."""
