"""Metrics, log lines and traces.

`metrics.py`: names and buckets, `version_series.py`: those of one version; `logging.py`: log lines;
`trace_context.py`: the trace that a request belongs to; `tracing.py`: whether there is a collector,
`otlp.py`: spans by OpenTelemetry, `stages.py`: when each stage happened; `watch.py`: stalls and memory;
`processes.py`: processor time and memory of all processes; `quantiles.py`: percentiles.
"""
