"""Both clients against the service itself, on a socket."""

import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ebseg_client import (
    Balance,
    BusyError,
    ClassSpec,
    ClientError,
    ConflictError,
    DeadlineError,
    EBSegClient,
    FieldsRefusedError,
    InputError,
    KeyRefusedError,
    NotFoundError,
    PictureRefusedError,
    Retry,
    ServiceFaultError,
    Shares,
)
from ebseg_client.requests import Output, Picture
from service.segmentation.decode import decode
from tests.service.fakes import INFO, PNG, FakeEngine, encoded, live, picture
from tests.waiting import WAIT

ROOT = Path(__file__).parents[2]
ONCE = Retry(attempts=1)
CLASSES = ["sky", "tree", "road"]


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[EBSegClient]:
    with EBSegClient(url, timeout=WAIT, retry=ONCE) as made:
        yield made


def expected_labels(pixels: NDArray[np.uint8], classes: int = 3) -> NDArray[np.uint16]:
    """What the fake engine finds."""
    return (pixels[:, :, 0].astype(int) * classes // 256 + 1).astype(np.uint16)


def test_typed_answer(client: EBSegClient) -> None:
    answer = client.segment(PNG, CLASSES, background=0.5)
    labels = expected_labels(picture())
    labels[picture()[:, :, 1] / 255 < 0.5] = 0
    assert (answer.width, answer.height) == (8, 6)
    assert answer.labels.dtype == np.uint16
    assert (answer.labels == labels).all()
    assert not answer.labels.flags.writeable
    assert [found.name for found in answer.classes] == CLASSES
    for label, found in enumerate(answer.classes, 1):
        assert (found.mask() == (labels == label)).all()
        assert found.mask().dtype == np.bool_
        assert (found.label, found.area) == (label, (labels == label).sum())
        assert found.fraction == pytest.approx(found.area / 48)
        assert found.confidence is not None
        assert 0.5 <= found.confidence <= 1
    assert answer.other is not None
    assert answer.other.area == (labels == 0).sum()
    assert answer["tree"].trained
    assert not answer["road"].trained
    with pytest.raises(KeyError):
        answer["cloud"]
    areas = [found.area for found in answer.found]
    assert areas == sorted(areas, reverse=True)
    assert (answer.model.name, answer.model.version, answer.model.digest) == ("fake", 3, INFO.digest)
    assert answer.caches["prediction"] == "miss"
    assert answer.timings_ms["total"] > 0
    assert answer.warnings == ()
    assert answer.document["request_id"] == answer.request_id
    assert (answer.png, answer.overlay_file, answer.scores) == (None, None, None)


@pytest.mark.parametrize("output", ["rle", "png", "npy"])
def test_label_map_is_the_servers_whatever_it_is_made_of(client: EBSegClient, output: str) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (37, 53, 3), np.uint8)
    both = client.segment(pixels, CLASSES, outputs=["npy", output])  # type: ignore[list-item]
    one = client.segment(pixels, CLASSES, outputs=[output])  # type: ignore[list-item]
    assert (one.labels == expected_labels(pixels)).all()
    assert (both.labels == one.labels).all()
    assert (both.classes[1].mask() == (one.labels == 2)).all()


def test_label_map_of_many_classes_comes_through_a_grey_png(client: EBSegClient) -> None:
    names = [f"class {number}" for number in range(300)]
    answer = client.segment(PNG, names, outputs=["png"])
    assert (answer.labels == expected_labels(picture(), 300)).all()
    assert answer.labels.max() > 255


def test_all_outputs(client: EBSegClient) -> None:
    subject = CLASSES[1] if isinstance(CLASSES[1], str) else CLASSES[1].name
    answer = client.segment(PNG, CLASSES, outputs=get_args(Output), long_side=4, subject=subject)
    assert (answer.width, answer.height) == (4, 3)
    assert answer.scores is not None
    assert answer.scores.shape == (3, 3, 4)
    assert answer.scores.dtype == np.float16
    assert answer.png is not None
    assert answer.overlay_file is not None
    with Image.open(io.BytesIO(answer.overlay_file)) as overlay:
        assert (overlay.format, overlay.size) == ("WEBP", (4, 3))
    (first,) = answer.classes[0].polygons or ()
    assert first.holes == ()
    assert answer.regions is not None
    for region in answer.regions:
        assert set(answer.labels[region.mask()].tolist()) == {region.label}
        assert region.mask().sum() == region.area
    for grey in (answer.confidence, answer.soft_mask, answer.cutout):
        assert grey is not None
        with Image.open(io.BytesIO(grey)) as image:
            assert image.size == (4, 3)
    assert answer.coco is not None
    assert len(answer.coco["annotations"]) == len(answer.regions)
    x, y = np.array(first.exterior).T
    assert (x.max() - x.min()) * (y.max() - y.min()) == answer.classes[0].area


def test_answer_without_a_map_says_so(client: EBSegClient) -> None:
    answer = client.segment(PNG, CLASSES, outputs=["overlay"])
    with pytest.raises(InputError, match="ask for rle, png or npy in outputs"):
        _ = answer.labels


def test_pictures_in_every_form(client: EBSegClient, tmp_path: Path) -> None:
    (tmp_path / "p.png").write_bytes(PNG)
    pixels = picture()
    alpha = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    image = Image.fromarray(pixels)
    forms: list[Picture] = [
        PNG,
        tmp_path / "p.png",
        str(tmp_path / "p.png"),
        pixels,
        alpha,
        image,
        image.convert("HSV").convert("RGB").convert("CMYK"),
    ]
    labels = [client.segment(form, CLASSES).labels for form in forms]
    assert all((one == expected_labels(pixels)).all() for one in labels[:-1])
    assert labels[-1].shape == (6, 8)
    grey = client.segment(pixels[:, :, 0], CLASSES)
    assert (grey.labels == expected_labels(pixels)).all()
    turned = client.segment(pixels[:, ::-1], CLASSES)  # not contiguous
    assert (turned.labels == expected_labels(pixels)[:, ::-1]).all()


def test_image_is_sent_as_its_pixels_are(client: EBSegClient) -> None:
    """A file is turned by its EXIF data; an image that is open already has the size that its owner sees."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(picture(), "JPEG", exif=exif)
    assert (client.segment(data, CLASSES).width, decode(data, max_pixels=99).shape[1]) == (6, 6)
    with Image.open(io.BytesIO(data)) as image:
        assert client.segment(image, CLASSES).width == 8


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ("nowhere.jpg", r"nowhere\.jpg cannot be read: No such file"),
        (np.zeros((4, 4, 3)), r"got float64 \[4, 4, 3\]"),
        (np.zeros((4, 4, 2), np.uint8), r"got \[4, 4, 2\]"),
        (np.zeros((0, 4, 3), np.uint8), r"got uint8 \[0, 4, 3\]"),
        (3, "got int"),
    ],
)
def test_pictures_that_cannot_be_sent(client: EBSegClient, form: Picture, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        client.segment(form, CLASSES)
    assert isinstance(caught.value, ValueError)
    assert caught.value.attempts == 0


def test_every_field_arrives() -> None:
    engine = FakeEngine()
    with live(engine) as (address, _), EBSegClient(address, timeout=7) as client:
        shares = Shares(supervised=0.2, mask_attention=0.7, frozen=0.1)
        answer = client.segment(
            PNG,
            ["sky", ClassSpec("bush", synonyms=["shrub"], trained=True, color="#123456")],
            templates=["a photo of a {}.", "a {}."],
            balance=Balance("arithmetic", trained=shares, new=shares),
            background=0.25,
            model="fake",
            version=3,
        )
        (job,) = engine.jobs
        client.segment(PNG, vocabulary="voc-20", templates="plain", timeout=3)
    assert answer["bush"].color == "#123456"
    assert job.vocabulary.classes[1].synonyms == ("bush", "shrub")
    assert job.vocabulary.templates == ("a photo of a {}.", "a {}.")
    assert job.balance is not None
    assert job.threshold == 0.25
    assert 6 < job.deadline.seconds <= 7
    assert len(engine.jobs[1].vocabulary) == 20
    assert 2 < engine.jobs[1].deadline.seconds <= 3


def test_wrong_arguments_are_told_before_anything_is_sent(client: EBSegClient) -> None:
    with pytest.raises(InputError, match="either classes or a vocabulary"):
        client.segment(PNG)
    with pytest.raises(InputError, match="either classes or a vocabulary"):
        client.segment_many([PNG], CLASSES, vocabulary="voc-20")
    with pytest.raises(InputError, match=r'as in \["sky", "tree"\]'):
        client.segment(PNG, "sky")
    with pytest.raises(InputError, match="a name or a ClassSpec, got int"):
        client.segment(PNG, [3])  # type: ignore[list-item]
    with pytest.raises(InputError, match="no option treshold"):
        client.segment(PNG, CLASSES, treshold=0.5)  # type: ignore[call-arg]
    with pytest.raises(InputError, match="seconds above 0, got -1"):
        client.segment(PNG, CLASSES, timeout=-1)
    with pytest.raises(InputError, match="at least one request"):
        client.segment_many([PNG], CLASSES, parallel=0)
    for timeout in ("5", None):
        with pytest.raises(InputError, match="seconds above 0, got"):
            EBSegClient(timeout=timeout)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a balance is a Balance, got str"):
        client.segment(PNG, CLASSES, balance="geometric")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="name of a model is missing, got 5"):
        client.model(5)  # type: ignore[arg-type]
    for wrong in (
        "localhost:8000",
        "ftp://host",
        "http://",
        3,
        "http://[::1",
        "http://h:66000",
        "http://a b",
    ):
        with pytest.raises(InputError, match="http://HOST:PORT"):
            EBSegClient(wrong)  # type: ignore[arg-type]
    for key in ("", "two\nlines", " space", "schlüssel", b"bytes"):
        with pytest.raises(InputError, match="API key"):
            EBSegClient(api_key=key)  # type: ignore[arg-type]


def test_errors_of_the_service(client: EBSegClient) -> None:
    with pytest.raises(FieldsRefusedError, match=r"classes\.1: .*given twice.* \[422\]") as fields:
        client.segment(PNG, ["sky", "sky"])
    assert [problem.field for problem in fields.value.fields] == ["classes.1"]
    assert (fields.value.status, fields.value.type) == (422, "invalid-request")
    assert fields.value.request_id is not None
    assert fields.value.request_id in str(fields.value)
    with pytest.raises(PictureRefusedError, match=r"\[415\]"):
        client.segment(b"no picture", CLASSES)
    with pytest.raises(PictureRefusedError, match=r"\[400\]"):
        client.segment(encoded(picture(300, 300))[:-500], CLASSES)
    with pytest.raises(NotFoundError, match=r"\[404\]"):
        client.segment(PNG, CLASSES, version=9)
    with pytest.raises(NotFoundError):
        client.vocabulary("nothing")
    with pytest.raises(KeyRefusedError, match=r"administration is off.*\[403\]"):
        client.pin("fake", 3)


def test_fault_of_the_service() -> None:
    engine = FakeEngine(error=RuntimeError("inside"))
    with live(engine) as (address, _), EBSegClient(address) as client:
        with pytest.raises(ServiceFaultError, match=r"\[500\]") as fault:
            client.segment(np.zeros((4, 4, 3), np.uint8), CLASSES)
        assert fault.value.attempts == 1


def test_vocabularies(client: EBSegClient) -> None:
    builtin = {entry.name: entry for entry in client.vocabularies()}
    assert (builtin["ade20k-150"].size, builtin["ade20k-150"].builtin) == (150, True)
    tree = ClassSpec("tree", synonyms=("bush",), trained=True, color="#00ff00")
    stored = client.put_vocabulary("mine", ["sky", tree])
    assert stored.classes == (ClassSpec("sky"), tree)
    assert (stored.name, stored.size, stored.builtin) == ("mine", 2, False)
    assert client.vocabulary("mine") == stored
    assert [found.name for found in client.segment(PNG, vocabulary="mine").classes] == ["sky", "tree"]
    client.put_vocabulary("mine", stored.classes[:1])
    assert client.vocabulary("mine").size == 1
    client.delete_vocabulary("mine")
    with pytest.raises(NotFoundError):
        client.delete_vocabulary("mine")
    with pytest.raises(ConflictError, match=r"\[409\]"):
        client.delete_vocabulary("voc-20")
    with pytest.raises(FieldsRefusedError):
        client.vocabulary("Mine?")  # quoted, so that it stays a name
    with pytest.raises(InputError, match="name of a vocabulary is missing, got ''"):
        client.vocabulary("")


def test_models_and_keys() -> None:
    with live(api_keys="user key 12345678", admin_keys="admin key 1234567") as (address, _):
        with EBSegClient(address, retry=ONCE) as nobody:
            with pytest.raises(KeyRefusedError, match=r"this needs a key.*\[401\]"):
                nobody.models()
            assert nobody.health().ready
        with EBSegClient(address, api_key="user key 12345678") as user:
            (model,) = user.models()
            assert user.model("fake") == model
            with pytest.raises(KeyRefusedError, match=r"\[403\]"):
                user.rollback("fake")
        with EBSegClient(address, api_key="admin key 1234567", retry=ONCE) as admin:
            with pytest.raises(ConflictError, match=r"\[409\]"):
                admin.pin("fake", 2)
            with pytest.raises(ConflictError, match=r"\[409\]"):
                admin.rollback("fake")
    assert (model.name, model.version, model.policy, model.pinned) == ("fake", 3, "fixed", None)
    assert [(version.version, version.role) for version in model.versions] == [(3, "current")]
    assert model.versions[0].loaded_at.tzinfo is not None
    assert model.quarantined == ()


def test_health_while_it_loads_and_after() -> None:
    with live() as (address, service), EBSegClient(address) as client:
        ready = client.health()
        assert (ready.ready, ready.reason, ready.models) == (True, None, {"fake": 3})
        assert ready.checks["devices"] == "ok"
        service.begin_drain()
        draining = client.health()
    assert not draining.ready
    assert draining.reason


def test_busy_service_is_asked_again_after_the_time_it_names() -> None:
    """The service's own 429, whose Retry-After is a whole second."""
    gate = threading.Event()
    engine = FakeEngine(gate=gate)
    with live(engine, max_pending=1) as (address, _), EBSegClient(address, timeout=WAIT) as client:
        waiting = threading.Thread(target=client.segment, args=(PNG, CLASSES))
        waiting.start()
        try:
            assert engine.running.wait(WAIT)
            with EBSegClient(address, retry=ONCE) as hasty, pytest.raises(BusyError) as busy:
                hasty.segment(PNG, CLASSES)
            assert busy.value.retry_after is not None
            assert busy.value.retry_after >= 1
            threading.Timer(0.2, gate.set).start()
            answer = client.segment(PNG, CLASSES)
        finally:
            gate.set()
            waiting.join(WAIT)
    assert answer.width == 8


def test_call_that_finds_all_connections_in_use_waits_its_time() -> None:
    gate = threading.Event()
    engine = FakeEngine(gate=gate)
    with live(engine) as (address, _), EBSegClient(address, connections=1) as client:
        busy = threading.Thread(target=client.segment, args=(PNG, CLASSES))
        busy.start()
        try:
            assert engine.running.wait(WAIT)
            with pytest.raises(DeadlineError, match=r"within 0.2 s \(PoolTimeout\)"):
                client.segment(PNG, CLASSES, timeout=0.2)
        finally:
            gate.set()
            busy.join(WAIT)
        assert client.segment(PNG, CLASSES).width == 8  # the place is free again


def test_services_deadline_ends_a_call() -> None:
    with live(FakeEngine(seconds=0.5)) as (address, _), EBSegClient(address) as client:
        with pytest.raises(DeadlineError) as late:
            client.segment(PNG, CLASSES, timeout=0.1)
        assert isinstance(late.value, ClientError)


def test_client_is_light() -> None:
    code = (
        "import sys\nfrom ebseg_client import EBSegClient\nEBSegClient().close()\n"
        "print(*sorted({'torch', 'fastapi', 'starlette', 'pydantic', 'cv2', 'pycocotools'}"
        " & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=WAIT
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
