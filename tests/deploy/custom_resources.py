"""Schemas of resources that Kubernetes itself does not know, as far as the manifests use them.

Written by hand from the operators' references: a field that is missing here is an error, which is the point.
"""

from typing import Any

DURATION = {"type": "string", "pattern": r"^(\d+(ms|[smhd]))+$"}
TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
NUMBER: dict[str, Any] = {"type": "integer", "minimum": 0}
ANYTHING: dict[str, Any] = {"type": "object"}


def _object(*required: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "required": list(required),
        "properties": properties,
        "additionalProperties": False,
    }


def _array(items: Any) -> dict[str, Any]:
    return {"type": "array", "minItems": 1, "items": items}


def _resource(version: str, spec: Any) -> dict[str, Any]:
    head = {"apiVersion": {"const": version}, "kind": TEXT, "metadata": ANYTHING}
    return _object(*head, "spec", **head, spec=spec)


TEXTS = {"type": "object", "additionalProperties": TEXT}
RULE = {
    "oneOf": [
        _object("record", "expr", record={"pattern": r"^[a-z_]\w*(:\w+)+$"}, expr=TEXT),
        _object(
            "alert",
            "expr",
            "labels",
            "annotations",
            alert=TEXT,
            expr=TEXT,
            labels=_object("severity", severity={"enum": ["critical", "warning"]}),
            annotations=_object(
                "summary", "description", "runbook_url", summary=TEXT, description=TEXT, runbook_url=TEXT
            ),
            **{"for": DURATION},
        ),
    ]
}
GROUPS = _object("groups", groups=_array(_object("name", "rules", name=TEXT, rules=_array(RULE))))
PROMETHEUS_RULE = _resource("monitoring.coreos.com/v1", GROUPS)
GOOGLE_RULES = _resource("monitoring.googleapis.com/v1", GROUPS)
POD_MONITORING = _resource(
    "monitoring.googleapis.com/v1",
    _object(
        "selector",
        "endpoints",
        selector=_object("matchLabels", matchLabels=TEXTS),
        targetLabels=_object(fromPod=_array(_object("from", "to", **{"from": TEXT}, to=TEXT))),
        endpoints=_array(
            _object("port", "interval", port=TEXT, path=TEXT, interval=DURATION, timeout=DURATION)
        ),
    ),
)
HTTP_ROUTE = _resource(
    "gateway.networking.k8s.io/v1",
    _object(
        "parentRefs",
        "rules",
        parentRefs=_array(_object("name", name=TEXT, namespace=TEXT)),
        hostnames=_array(TEXT),
        rules=_array(
            _object(
                matches=_array(
                    _object(
                        path=_object("value", type={"enum": ["Exact", "PathPrefix"]}, value=TEXT),
                    )
                ),
                timeouts=_object(request=DURATION, backendRequest=DURATION),
                backendRefs=_array(_object("name", "port", name=TEXT, port=NUMBER)),
            )
        ),
    ),
)
SERVING_RUNTIME = _resource(
    "serving.kserve.io/v1alpha1",
    _object(
        "containers",
        "supportedModelFormats",
        annotations=TEXTS,
        supportedModelFormats=_array(
            _object("name", name=TEXT, version=TEXT, autoSelect={"type": "boolean"})
        ),
        protocolVersions=_array({"enum": ["v1", "v2", "grpc-v2"]}),
        containers=_array(ANYTHING),
    ),
)
INFERENCE_SERVICE = _resource(
    "serving.kserve.io/v1beta1",
    _object(
        "predictor",
        predictor=_object(
            "model",
            terminationGracePeriodSeconds=NUMBER,
            model=_object(
                "modelFormat",
                modelFormat=_object("name", name=TEXT),
                runtime=TEXT,
                protocolVersion={"enum": ["v1", "v2"]},
                storageUri={"type": "string", "pattern": "^(s3|gs|pvc|hf|https)://"},
            ),
        ),
    ),
)
SERVICE_MONITOR = _resource(
    "monitoring.coreos.com/v1",
    _object(
        "selector",
        "endpoints",
        jobLabel=TEXT,
        selector=_object("matchLabels", matchLabels=TEXTS),
        podTargetLabels=_array(TEXT),
        endpoints=_array(
            _object("port", "path", port=TEXT, path=TEXT, interval=DURATION, scrapeTimeout=DURATION)
        ),
    ),
)
SCALED_OBJECT = _resource(
    "keda.sh/v1alpha1",
    _object(
        "scaleTargetRef",
        "triggers",
        scaleTargetRef=_object("name", apiVersion=TEXT, kind=TEXT, name=TEXT),
        pollingInterval=NUMBER,
        minReplicaCount=NUMBER,
        maxReplicaCount=NUMBER,
        fallback=_object("failureThreshold", "replicas", failureThreshold=NUMBER, replicas=NUMBER),
        advanced=_object(horizontalPodAutoscalerConfig=_object(behavior=ANYTHING)),
        triggers=_array(
            _object(
                "type",
                "metadata",
                type={"const": "prometheus"},
                metricType={"enum": ["AverageValue", "Value"]},
                metadata=_object(
                    "serverAddress",
                    "query",
                    "threshold",
                    serverAddress=TEXT,
                    query=TEXT,
                    threshold=TEXT,
                    ignoreNullValues={"enum": ["true", "false"]},
                ),
            )
        ),
    ),
)
REPLICA = _object(
    "template",
    replicas={"type": "integer", "minimum": 1},
    restartPolicy={"enum": ["Always", "OnFailure", "Never", "ExitCode"]},
    template=_object("spec", metadata=ANYTHING, spec=ANYTHING),
)
PYTORCH_JOB = _resource(
    "kubeflow.org/v1",
    _object(
        "pytorchReplicaSpecs",
        nprocPerNode=TEXT,
        runPolicy=_object(
            cleanPodPolicy={"enum": ["All", "Running", "None"]},
            backoffLimit=NUMBER,
            ttlSecondsAfterFinished=NUMBER,
        ),
        pytorchReplicaSpecs=_object("Master", Master=REPLICA, Worker=REPLICA),
    ),
)
SCHEMAS: dict[str, dict[str, Any]] = {
    "PrometheusRule": PROMETHEUS_RULE,
    "ServiceMonitor": SERVICE_MONITOR,
    "ScaledObject": SCALED_OBJECT,
    "PyTorchJob": PYTORCH_JOB,
    "Rules": GOOGLE_RULES,
    "PodMonitoring": POD_MONITORING,
    "HTTPRoute": HTTP_ROUTE,
    "ServingRuntime": SERVING_RUNTIME,
    "InferenceService": INFERENCE_SERVICE,
}
