"""The service: recognition with everybody's adapter, and adapters from recordings, over HTTP."""
