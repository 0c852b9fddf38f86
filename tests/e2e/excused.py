"""The documents' commands that `test_readme.py` does not run, and why."""

# Every command that no test runs, and why.
NOT_RUN = {
    "make setup": "installs; the targets are looked at by test_make_knows_the_target",
    "pip install ./client": "tests/client/test_distribution.py builds and installs it",
    "make lock": "renews the locks from an index; tests/requirements/test_lock.py makes some from a folder",
    'make lock UPGRADE="fastapi starlette"': "as above",
    "make lock UPGRADE=all": "as above",
    "make demo": "test_demo.py runs what it runs",
    "make check test": "would run this test in itself",
    ".venv/bin/python -m tests.load": "takes a minute; tests/load/test_soak.py does some seconds",
    ".venv/bin/python -m tests.load.hostile": "takes a minute; tests/load/test_hostile.py does some seconds",
    ".venv/bin/python -m tests.load.offline": "takes an hour; tests/load/test_offline.py does a hundredth",
    "make soak": "takes twelve minutes; the same test, where it is slow, has each fault once",
    ". .venv/bin/activate": "the tests run in an environment already",
    "ebseg pull base": "needs the hub; tests/model/fetch pulls from a local one",
    "ebseg pull base --dry-run": "as above",
    "ebseg pull hf://slonetime/EBSeg@main/EBSeg_base.pth --name my-base": "as above",
    "ebseg pull https://example.com/weights/EBSeg_base.pth --as base --sha256 HEX": "as above",
    "ebseg pull EBSeg_base.pth --as base": "needs the released weights",
    "ebseg serve base": "tests/service/commands/test_model_by_name.py serves what it has pulled",
    'ebseg segment photo.jpg --classes "sky, tree, road" --model base': "as above",
    "ebseg inspect base": "tests/model/fetch/test_pull_command.py inspects by name",
    "make demo MODEL=base": "tests/e2e/test_demo_models.py runs what it runs",
    "ebseg import EBSeg_base.pth --dry-run": "needs the released weights",
    "ebseg import EBSeg_base.pth --out registry/ebseg-base/1": "needs the released weights",
    "ebseg serve --checkpoint registry/ebseg-base/1": "needs the released weights",
    "ebseg export registry/ebseg-base/1 --official EBSeg_base_again.pth": "needs the released weights",
    "ebseg export registry/ebseg-base/1 --format onnx --shape 640x960": "as above",
    "ebseg serve --registry registry --model ebseg-tiny": "tests/load/test_soak.py serves a registry",
    "ebseg serve --registry s3://bucket/registry --model ebseg-base,ebseg-tiny@3 --redis-url "
    "redis://cache:6379/0": "tests/service/hot_loading/test_models_real.py serves from a real S3 server",
    "curl -F image=@a.jpg -F image=@b.jpg -F classes=house "
    "http://127.0.0.1:8000/v1/segment/batch": "tests/service/routes/test_several.py sends several",
    'ebseg serve --cors-origins "https://app.example.com,https://*.example.org"': (
        "tests/service/http/test_cross_origin.py asks as browsers do"
    ),
    'ebseg serve --url-hosts "example.com,*.example.com"': "tests/service/remote_pictures has servers",
    "ebseg serve --registry hf://OWNER/REPOSITORY --model ebseg-base": (
        "tests/service/hot_loading/test_models_hub.py serves from a local hub"
    ),
    'curl -X POST -H "X-API-Key: $EBSEG_ADMIN_KEY" http://127.0.0.1:8000/v1/models/ebseg-tiny:rollback': (
        "needs two versions; tests/service/routes/test_models_api.py rolls back over HTTP"
    ),
    'ebseg segment samples --classes "house, boat, car, lamp" --out masks --overlay overlays '
    "--sheet sheet.png": ("tests/e2e/test_cli.py runs it"),
    'ebseg segment samples --classes "house, boat, car, lamp" --out masks '
    "--url http://127.0.0.1:8000 --parallel 4": ("tests/e2e/test_cli.py runs it"),
    "ebseg segment samples --vocabulary voc-20 --url http://127.0.0.1:8000 --json": (
        "tests/e2e/test_cli.py runs it"
    ),
    "ebseg models list --url http://127.0.0.1:8000": "tests/e2e/test_cli.py runs it",
    "ebseg models show ebseg-tiny --url http://127.0.0.1:8000": "tests/e2e/test_cli.py runs it",
    'ebseg vocabularies put harbour --classes "boat, water, quay" --url http://127.0.0.1:8000': (
        "tests/e2e/test_cli.py runs it"
    ),
    "ebseg vocabularies show harbour --url http://127.0.0.1:8000": "tests/e2e/test_cli.py runs it",
    "ebseg vocabularies delete harbour --url http://127.0.0.1:8000": "tests/e2e/test_cli.py runs it",
    "ebseg models show ebseg-tiny": "the same of a server on its usual port",
    'export EBSEG_API_KEY="$EBSEG_ADMIN_KEY"': "the key of the two commands below it",
    "ebseg models rollback ebseg-tiny": "the same with the key in the line before",
    "ebseg models canary ebseg-tiny --watch --prometheus http://127.0.0.1:9090": (
        "needs a canary; tests/deploy/test_prometheus.py watches one with a real Prometheus"
    ),
    'EBSEG_API_KEY="$EBSEG_ADMIN_KEY" ebseg models rollback ebseg-tiny': (
        "needs two versions; tests/service/routes/test_models_api.py rolls back over HTTP"
    ),
    "source <(ebseg completion bash)": "tests/e2e/test_cli.py runs it",
    "docker compose up --build --detach": "needs a container engine; tests/deploy/test_compose.py",
    "docker compose -f docker-compose.yml -f docker/compose.gpu.yml up --build --detach": "as above; a GPU",
    ".venv/bin/python -m tests.deploy.build_image --target cuda": "needs root and takes ten minutes",
    "ebseg storybook data/storybook": "takes minutes; a smaller one is made before these tests",
    "ebseg storybook data/held-out --train 0 --val 200 --seed 101": "as above",
    "ebseg storybook data/short --train 2000 --val 100 --seed 5": "as above",
}

TRAINING = "needs data, or hours; test_training_document.py runs docs/training.md in its order on small data"
# What the commands begin with that no test runs as they stand, but for those in `RUN`, and why.
TOO_LONG = {
    "make train-tiny": "takes up to two hours; test_train_tiny.py runs a small share of it",
    "make train-families": "takes hours; test_families.py runs its recipe, test_ablate_cli.py its tables",
    "ebseg bench ": "takes minutes or gigabytes",
    "ebseg prepare ": TRAINING,
    "ebseg check ": "needs a data set; tests/training/data/test_check.py runs it on small ones",
    "ebseg pretrain ": TRAINING,
    "ebseg encoders ": TRAINING,
    "ebseg train ": TRAINING,
    "torchrun ": TRAINING,
    "ebseg evaluate ": TRAINING,
    "ebseg reproduce ": TRAINING,
    "ebseg calibrate ": "takes minutes; test_calibrate.py measures on small images",
    "ebseg ablate ": TRAINING,
    "docker build ": "needs a container engine; tests/deploy/build_image.py builds without one",
    "docker run ": "as above; build_image.py runs what it built",
    "kubectl create ": "needs a cluster",
    "kubectl label ": "needs a cluster",
    "helm ": "needs a cluster; tests/deploy/test_manifests.py renders every set of values",
    "make gpu-check": "needs a GPU; tests/training/gpu_check runs its plan",
    "make setup TORCH=cuda": "needs gigabytes",
    "ebseg serve --device cuda": "needs a GPU",
    "kubectl --namespace ": "needs a cluster",
    "kubectl apply ": "needs a cluster; tests/deploy/test_manifests.py validates what is applied",
    "kubectl delete ": "needs a cluster",
    "ebseg publish ": TRAINING,
}
