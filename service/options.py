"""Names and help of the settings, apart from `settings.py` so that `ebseg --help` needs no pydantic."""

OPTIONS: dict[str, str] = {
    "checkpoint": "folder of the checkpoint to serve; left out, the EBSeg-tiny that comes with ebseg",
    "host": "address to listen on; 0.0.0.0 for all (default: 127.0.0.1)",
    "port": "port to listen on; 0 takes a free one (default: 8000)",
    "max_bytes": "largest request body, bytes (default: 20971520)",
    "max_pixels": "largest picture, and largest output, pixels (default: 50000000)",
    "max_classes": "longest list of classes (default: 1024)",
    "timeout_ms": "time for a request that names none, waiting included, ms (default: 30000)",
    "max_timeout_ms": "longest time that a request may ask for, ms (default: 120000)",
    "body_timeout_s": "time for a request's body to arrive, seconds (default: 10.0)",
    "drain_timeout_s": "time for running requests to end after SIGTERM, seconds (default: 30)",
    "decode_threads": "threads that decode pictures and encode masks (default: 4)",
    "max_pending": "requests taken in at a time; more are answered with 429 (default: 64)",
    "device": "where the model runs: auto, cpu, cuda or cuda:N; auto prefers CUDA (default: auto)",
    "dtype": "numbers the model computes with: float32, bfloat16 or float16 (default: float32)",
    "log_level": "least level logged: debug, info, warning or error (default: info)",
    "log_format": "form of the log lines: json or text (default: json)",
}
