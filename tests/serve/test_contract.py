"""The API as /openapi.json describes it, asked by schemathesis with good and bad requests of its making.

500 requests; NANOCHAT_LONG=1 makes it 10,000. Nothing may be 500 or above but a 503 with Retry-After, and
every error has OpenAI's shape.
"""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from served import served
from toy import LONG

from nanochat.engine import Engine

pytestmark = pytest.mark.slow
REQUESTS = 10_000 if LONG else 500


def test_no_request_breaks_the_server(engine: Engine) -> None:
    schemathesis = pytest.importorskip("schemathesis", minversion="4.0")
    seen: Counter[int] = Counter()
    with served(engine, slots=8) as one:
        schema = schemathesis.openapi.from_url(f"{one.url}/openapi.json")
        operations = [found.ok() for found in schema.get_all_operations()]
        posts = [operation for operation in operations if operation.method == "post"]
        assert len(posts) == 3 and len(operations) >= 8

        def examine(case: schemathesis.Case) -> None:
            if isinstance(case.body, dict) and isinstance(case.body.get("model", ""), str):
                case.body["model"] = one.model.id  # or else most are a 404
            response = case.call(base_url=one.url)
            status = response.status_code
            seen[status] += 1
            said = f"{status} {response.text[:500]} to {case.as_curl_command()}"
            assert status < 500 or (status == 503 and "retry-after" in response.headers), said
            if status >= 400:
                assert set(response.json()["error"]) >= {"message", "type", "param", "code"}, said

        for operation in operations:
            rules = settings(
                max_examples=-(-REQUESTS // len(posts)) if operation in posts else 20, deadline=None,
                derandomize=True, database=None, phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )  # fmt: skip
            rules(given(case=operation.as_strategy())(examine))()
        one.idle()
        assert one.http.get("/health").json() == {"status": "ok"}
    print(f"{sum(seen.values())} requests: {dict(sorted(seen.items()))}")
    assert sum(seen.values()) >= REQUESTS and seen[200] > 0.1 * REQUESTS
