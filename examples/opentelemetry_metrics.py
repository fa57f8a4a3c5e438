"""Send what calls cost to OpenTelemetry, and print what an exporter would get.

Beside `budgetguard-ai[otel]` it needs `pip install opentelemetry-sdk`.
"""

from _offline import offline
from openai import OpenAI

import budgetguard
from budgetguard import BudgetExceededError, budget_user

try:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader

    from budgetguard.integrations.opentelemetry import instrument
except ImportError:
    raise SystemExit(
        "this example needs more: pip install 'budgetguard-ai[otel]' opentelemetry-sdk"
    ) from None

offline()

guard = budgetguard.default_guard()
guard.set_budget(0.0002, user="ada")
reader = InMemoryMetricReader()  # pip install opentelemetry-exporter-otlp has those that export
instrument(guard, meter_provider=MeterProvider([reader]))
client = budgetguard.wrap(OpenAI())

with budget_user("ada"):
    for cap in (100, 1_000):
        try:
            client.chat.completions.create(
                model="gpt-4o-mini",
                messages=[{"role": "user", "content": "Hello?"}],
                max_completion_tokens=cap,
            )
        except BudgetExceededError:
            print("A call was refused.")

found = reader.get_metrics_data()
for resource in found.resource_metrics if found else ():
    for scope in resource.scope_metrics:
        for metric in scope.metrics:
            for point in metric.data.data_points:
                total = point.value if hasattr(point, "value") else point.sum
                print(f"{metric.name}: {total:.6g} {metric.unit}", dict(point.attributes or {}))
