"""The OpenAPI document: whatever is sent by it, the service does not fail."""

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode

from tests.serving.conftest import ALL, Served

EXAMPLES = 15  # per operation


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


@pytest.mark.slow
def test_no_call_makes_the_service_fail(served: Served) -> None:
    """Whatever fits the document, or nearly fits it; without schemathesis' plugin, which this pytest does not know."""
    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    called = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path.endswith("/events"):  # which may last
            continue

        @given(case=st.one_of(operation.as_strategy(), operation.as_strategy(GenerationMode.NEGATIVE)))
        @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
        def call(case: schemathesis.Case) -> None:
            response = case.call(base_url=served.url, headers={"Authorization": f"Bearer {ALL}"})
            called.add((case.operation.label, response.status_code))
            assert response.status_code < 500, response.text
            if response.status_code >= 400:
                assert response.headers["content-type"] == ["application/problem+json"]
                assert response.json()["status"] == response.status_code

        call()
    assert len({label for label, _ in called}) >= 12
    assert {status for _, status in called} >= {200, 404, 422}


def test_the_service_still_runs(client: httpx.Client) -> None:
    assert client.get("/v1/health").json()["status"] == "ok"
