"""Names and help of the settings, apart from `settings.py` so that `ebseg --help` needs no pydantic."""

# What a section of the help is about, and the first of its settings in OPTIONS' order.
SECTIONS = {
    "what is served": "checkpoint",
    "where, and limits of a request": "host",
    "limits of a connection": "body_timeout_s",
    "queues and batches": "drain_timeout_s",
    "caches": "redis_url",
    "images by URL": "url_hosts",
    "keys": "api_keys",
    "traces, devices, log": "otlp_endpoint",
}
# What stands for a setting's value in the help, by the end of its name; the first that fits counts.
METAVARS = {
    "_url": "URL",
    "_endpoint": "URL",
    "registry": "PLACE",
    "checkpoint": "FOLDER",
    "_dir": "FOLDER",
    "_path": "PATH",
    "model": "NAMES",
    "host": "ADDRESS",
    "_hosts": "HOSTS",
    "_buckets": "BUCKETS",
    "_keys": "KEYS",
    "_origins": "ORIGINS",
    "_bytes": "BYTES",
    "_pixels": "PIXELS",
    "_ms": "MS",
    "_s": "SECONDS",
    "_weights": "true|false",
    "_predictions": "true|false",
    "device": "DEVICE",
    "padding": "WHICH",
    "dtype": "DTYPE",
    "log_level": "LEVEL",
    "log_format": "FORM",
    "": "N",
}

MAX_PIXELS = 50_000_000  # of a picture, and of an output
MAX_BYTES = 20 << 20  # of a request, and of any picture file that is read
MOST_PICTURES = 256  # of one request, whatever the settings say
MOST_REGIONS = 20_000  # of an answer

OPTIONS: dict[str, str] = {
    "checkpoint": "folder of the checkpoint to serve; left out, the EBSeg-tiny that comes with ebseg",
    "registry": "folder or URL (hf://OWNER/REPOSITORY, s3://BUCKET/FOLDER) that versions are published to, "
    "REGISTRY/NAME/VERSION; instead of checkpoint",
    "model": "models to serve from the registry, with commas between: NAME, NAME@3 (pinned) or "
    "NAME@canary:10 (percent for a new version); requests that name none go to the first",
    "registry_poll_s": "time between two looks at the registry, seconds (default: 5.0)",
    "cache_dir": "folder that versions of a remote registry are fetched to; left out, a temporary one",
    "map_weights": "true leaves weights on the CPU in their files, whose memory processes share; a file that "
    "is cut in place then ends them. false reads them (default: false)",
    "canary_requests": "good responses after which a canary takes over (default: 200)",
    "canary_slowdown": "a canary whose seconds on the device, at the 95th percentile, are more than so many "
    "times the current version's is withdrawn (default: 2.0)",
    "canary_s": "after this time a canary takes over however few requests there were, unless it failed more "
    "often than it answered, seconds (default: 3600.0)",
    "host": "address to listen on; 0.0.0.0 for all (default: 127.0.0.1)",
    "port": "port to listen on; 0 takes a free one; left out, the variable PORT counts (default: 8000)",
    "workers": "processes that talk HTTP, decode and encode, around one that has the devices; 1 is one "
    "process for all (default: 1)",
    "root_path": "path below which a proxy passes requests on without cutting it off, such as /ebseg; "
    "left out, the proxy cuts it off",
    "max_bytes": "largest request body, such as 20 MiB (default: 20 MiB)",
    "max_pixels": "largest image, and largest output, pixels (default: 50000000)",
    "max_pictures": "most images of a request to /v1/segment/batch, max_bytes in all (default: 16)",
    "max_classes": "longest list of classes, up to 4096; LVIS has 1203 (default: 1024)",
    "max_vocabularies_per_key": "most class lists that one API key stores, of 1000 in all (default: 100)",
    "timeout_ms": "time for a request that names none, waiting included, ms (default: 30000)",
    "max_timeout_ms": "longest time of a request, ms; who asks for more gets a warning (default: 120000)",
    "body_timeout_s": "time for a request's body to arrive, seconds (default: 30.0)",
    "header_timeout_s": "time for a request's headers to arrive, seconds (default: 15.0)",
    "max_header_bytes": "largest head of a request: its line and all headers (default: 64 KiB)",
    "answer_timeout_s": "time for a client to take its response, seconds (default: 120.0)",
    "min_rate": "least rate, over stall_s, at which a body arrives and a response is taken, bytes a second "
    "(default: 1024)",
    "stall_s": "how long a body or a response may stay below min_rate, seconds (default: 20.0)",
    "idle_timeout_s": "how long a connection may be silent, before a request or between two, seconds; to be "
    "longer than a proxy's (default: 75.0)",
    "max_connections": "connections at a time; one that is silent makes room for a new one, else the "
    "response is 503 (default: 4096)",
    "max_connections_per_address": "connections from one address at a time; 0 for no limit, as behind a "
    "proxy, whose address all have; each worker counts its own (default: 0)",
    "drain_timeout_s": "time for running requests to end after SIGTERM, seconds (default: 30)",
    "decode_threads": "threads that decode images and encode masks; left out, one a core, at most 8",
    "max_pending": "requests taken in at a time; more are answered with 429 (default: 256)",
    "max_pending_pixels": "pixels at network resolution that may wait or run (default: 64000000)",
    "max_host_bytes": "memory that requests under way may use: bodies, images, responses; left out, "
    "three fifths of what the process may take beside models and caches",
    "max_batch_size": "most images of a batch (default: 8)",
    "max_batch_delay_ms": "how long a free device waits for a fuller batch, from its oldest request, ms "
    "(default: 0.0)",
    "ageing_s": "after this time waiting a request goes before all later ones, seconds (default: 10.0)",
    "watchdog_s": "a batch without progress for so long makes /livez fail, seconds (default: 120.0)",
    "redis_url": "Redis for text embeddings and vocabularies, redis://[:password@]host:port/db or rediss://; "
    "redis+cluster://host:port,host:port or redis+sentinel://host:port,host:port/service/db; left out, the "
    "process alone",
    "redis_timeout_ms": "what one round trip to Redis may take before it is given up, ms (default: 50)",
    "text_cache_bytes": "text embeddings kept in the process (default: 256 MiB)",
    "text_cache_ttl_s": "time that text embeddings stay in Redis, seconds (default: 2592000.0)",
    "prediction_cache_bytes": "predictions kept for new classes on the same image; 0 for none "
    "(default: 256 MiB)",
    "url_hosts": "hosts that images may be fetched from by `url`: HOST, HOST:PORT or *.HOST, with commas "
    "between; only at public addresses; left out, none",
    "url_private_hosts": "further such hosts, which may have private addresses",
    "url_buckets": "buckets that images may be fetched from by `url`, s3://BUCKET or gs://BUCKET, with "
    "commas between; left out, none",
    "url_timeout_s": "time for an image to arrive from its URL, seconds (default: 10.0)",
    "api_keys": "keys that may call /v1 and /v2, with commas between, each of 16 characters or more or as "
    "NAME:sha256:HEX:OPTIONS; left out, anyone may",
    "admin_keys": "keys that may pin, roll back and reload models, written as api_keys; left out, nobody may",
    "cors_origins": "pages of other sites that may call from a browser: origins, scheme and host and port, "
    "with commas between; *.HOST for all below a host, or * for all; left out, none",
    "share_caches": "true answers one key's requests with predictions and text embeddings that another key's "
    "made; false keeps them apart, so that nobody learns what others sent (default: false)",
    "otlp_endpoint": "URL that traces go to by OTLP over HTTP, http://HOST:4318/v1/traces; wins over "
    "OTEL_EXPORTER_OTLP_ENDPOINT; needs ebseg[otlp]",
    "device": "where the model runs: auto, cpu, cuda, cuda:N, or several with commas between, one inference "
    "thread each; auto takes all CUDA devices, else the CPU (default: auto)",
    "padding": "own pads an image as little as the model allows; few pads to five shapes, so that "
    "images of any sizes fill a GPU's batches, at the price of other labels; a CPU takes own alone "
    "(default: own)",
    "dtype": "numbers the model computes with: float32, bfloat16, float16, or auto: bfloat16 where the "
    "processor has units for it, else float32; a type that it only emulates is refused (default: float32)",
    "log_level": "least level logged: debug, info, warning or error (default: info)",
    "log_format": "form of the log lines: json, text, or auto for text on a terminal and json elsewhere "
    "(default: auto)",
}
