"""The alerts of docker/ as Kubernetes' PrometheusRule. As a script: writes that file anew."""

from tests.deploy.files import ROOT

ALERTS = ROOT / "docker" / "prometheus" / "alerts.yml"
MANIFEST = ROOT / "k8s" / "base" / "prometheusrule.yaml"
_HEAD = """\
# Made of docker/prometheus/alerts.yml by `python -m tests.deploy.prometheus_rule`: change the alerts there.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: ebseg
  labels:
    app.kubernetes.io/name: ebseg
spec:
"""


def prometheus_rule() -> str:
    """The manifest's text: the same groups, two columns to the right, without the remarks above them."""
    lines = ALERTS.read_text(encoding="utf-8").splitlines()
    groups = lines[lines.index("groups:") :]
    return _HEAD + "".join(f"  {line}".rstrip() + "\n" for line in groups)


if __name__ == "__main__":
    MANIFEST.write_text(prometheus_rule(), encoding="utf-8")
