"""The OpenAPI document: whatever is sent by it, the service does not fail."""

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings

from tests.serving.conftest import ALL, Served

EXAMPLES = 15  # per operation


@pytest.fixture(scope="module")
def schema(served: Served) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{served.url}/openapi.json")


def test_every_call_is_described(served: Served) -> None:
    with served.client() as nobody:
        document = nobody.get("/openapi.json").json()
    calls = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert ("POST", "/v1/audio/transcriptions") in calls
    assert len(calls) >= 12
    text = str(document)
    assert "HTTPValidationError" not in text
    assert "Problem" in document["components"]["schemas"]
    for _, item in document["paths"].items():
        for operation in item.values():
            assert operation["description"]


def test_nothing_loads_scripts_from_elsewhere(served: Served) -> None:
    with served.client() as nobody:
        assert nobody.get("/docs").status_code == 404
        assert "default-src 'self'" in nobody.get("/v1/health").headers["content-security-policy"]


loader = schemathesis.pytest.from_fixture("schema")


@pytest.mark.slow
@loader.exclude(path_regex="events$").parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
def test_no_call_makes_the_service_fail(case: schemathesis.Case, served: Served) -> None:
    response = case.call(base_url=served.url, headers={"Authorization": f"Bearer {ALL}"})
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert response.headers["content-type"][0] == "application/problem+json" or response.status_code == 405


def test_the_service_still_runs(client: httpx.Client) -> None:
    assert client.get("/v1/health").json()["status"] == "ok"
