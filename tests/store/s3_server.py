"""An S3 server on loopback, a program of its own: moto with its objects in memory. Prints its URL.

It runs in an environment of its own, `make .venv/s3/complete`: botocore forbids what constraints.txt pins.
"""

from threading import Lock

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

application = DomainDispatcherApplication(create_backend_app)
lock = Lock()


def one_request_at_a_time(environ, start_response):
    """An object store's conditional write is atomic, moto's is not: it looks, and then writes."""
    with lock:
        return application(environ, start_response)


if __name__ == "__main__":
    server = make_server("127.0.0.1", 0, one_request_at_a_time, threaded=True)
    print(f"http://127.0.0.1:{server.port}", flush=True)
    server.serve_forever()
