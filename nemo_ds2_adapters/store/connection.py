"""Object stores over the network: finding the client for a URL, and saying in one line what went wrong."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from nemo_ds2_adapters.errors import InputError, StoreAccessError

if TYPE_CHECKING:
    from obstore.store import ObjectStore

PROTOCOLS = "s3", "s3a", "gs", "az", "azure", "abfs", "abfss"
ENDPOINTS = "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"  # environment variables
RETRIES = 5  # of a request that fails on the way, or at the server
RETRY_SECONDS = 60.0
NO_BUCKET = "there is no such bucket: make it, or check the URL"


def connect(url: str) -> "ObjectStore":
    """The client for `s3://bucket/prefix`, or of another object store; nothing is asked of the server.

    Raises InputError: no such protocol, the package that speaks it is not installed, or an endpoint that is no URL.
    """
    protocol = url.partition("://")[0]
    if protocol not in PROTOCOLS:
        raise InputError(f"store {url}: expected a directory, or a URL that begins with {'://, '.join(PROTOCOLS)}://")
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError as error:
        raise InputError(f"store {url}: obstore is missing: pip install 'nemo_ds2_adapters[s3]'") from error
    for name in ENDPOINTS if protocol.startswith("s3") else ():
        if (endpoint := os.environ.get(name)) and "://" not in endpoint:
            raise InputError(f"store {url}: {name}={endpoint}: expected a URL, such as http://{endpoint}")
    try:
        return from_url(
            url,
            client_options={"allow_http": True},  # if the endpoint says so
            retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
        )
    except (BaseError, ValueError) as error:
        raise InputError(f"store {url}: {_first_line(error)}") from error


@contextmanager
def explained(path: str, verb: str, but: type[Exception] | tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Raises StoreAccessError: the store at the other end, or the way there, refuses. A missing bucket always does."""
    try:
        yield
    except Exception as error:
        reason = _reason(error)
        if isinstance(error, but) and reason != NO_BUCKET:
            raise
        raise StoreAccessError(f"{path}: cannot be {verb} ({reason})") from error


def _reason(error: Exception) -> str:
    text = str(error)
    if "NoSuchBucket" in text or "ContainerNotFound" in text:
        return NO_BUCKET
    if "403 Forbidden" in text or "401 Unauthorized" in text:  # not of every call an exception of its own
        return "access denied: check the credentials in the environment, and what they are allowed"
    line = _first_line(error)
    return f"{line}: check network and endpoint" if "error sending request" in line else line


def _first_line(error: Exception) -> str:
    """What a client says, without the answer's XML and its own structures."""
    return str(error).partition("\n")[0].partition(": <?xml")[0]
