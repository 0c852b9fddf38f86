"""Which URLs are taken, and which addresses are public."""

import pytest

from service.errors import InvalidRequestError
from service.remote_pictures.addresses import Allowed, BucketAddress, WebAddress, is_public
from service.settings import SettingsError, load_settings, to_toml

ALLOWED = Allowed(["pictures.example", "*.cdn.example", "odd.example:8443"], ["127.0.0.1:8000"], ["s3://b"])

HOSTILE = [
    # the loopback in all its forms, none of which is the one that is listed
    "http://127.0.0.1/",
    "http://2130706433:8000/",
    "http://0x7f000001:8000/",
    "http://0x7f.0.0.1:8000/",
    "http://017700000001:8000/",
    "http://0177.0.0.1:8000/",
    "http://127.1:8000/",
    "http://127.0.0.1.:8000/",
    "http://127.000.000.001:8000/",
    "http://[::ffff:127.0.0.1]:8000/",
    "http://[::ffff:7f00:1]:8000/",
    "http://[::1]:8000/",
    "http://[::]:8000/",
    "http://0:8000/",
    "http://0.0.0.0:8000/",
    "http://localhost:8000/",
    "http://127.0.0.1:80800000/",
    "http://[::127.0.0.1]:8000/",
    "http://[::ffff:0:127.0.0.1]:8000/",
    "http://[2002:7f00:1::]:8000/",
    "http://[64:ff9b::127.0.0.1]:8000/",
    "http://0x7f.1:8000/",
    "http://127.0.0.1%00.pictures.example/",
    # metadata of clouds, the inside of networks
    "http://169.254.169.254/latest/meta-data/",
    "http://metadata.google.internal/computeMetadata/v1/",
    "http://[fd00:ec2::254]/",
    "http://[fe80::1%25eth0]/",
    "http://[fe80::1%eth0]/",
    "http://[::1%25lo]:8000/",
    "http://100.100.100.200/",
    "http://10.0.0.1/",
    "http://[64:ff9b::a9fe:a9fe]/",
    # users, and what looks like a host that is listed
    "http://pictures.example@169.254.169.254/",
    "http://user:password@pictures.example/",
    "http://pictures.example:80@evil.example/",
    "http://evil.example#@pictures.example/",
    "http://evil.example\\@pictures.example/",
    "http://evil.example/?x=http://pictures.example/",
    "http://pictures.example.evil.example/",
    "http://evilpictures.example/",
    "http://cdn.example/",
    "http://.cdn.example/",
    "http://a..cdn.example/",
    # dots, letters and ports
    "http://pictures.example./",
    "http://pictures。example/",
    "http://ⓟictures.example/",
    "http://pictures.example:22/",
    "http://pictures.example:443/",
    "https://pictures.example:80/",
    "http://odd.example/",
    "http://pictures.example:/",
    "http://pictures.example:0/",
    "http://pictures.example:+80/",
    "http://pictures.example:٨٠/",
    "http://pictures.example:80:80/",
    "http://pictures.example%2eevil.example/",
    "http://xn--pictures-7k4e.example/",
    "http://pictures.example\u200b/",
    # schemes, and bytes that parsers fall out over
    "ftp://pictures.example/a",
    "file:///etc/passwd",
    "gopher://pictures.example/",
    "//pictures.example/",
    "http:pictures.example/",
    "http:///pictures.example/",
    " http://pictures.example/",
    "http://pictures.example/\r\nX-Injected: 1",
    "http://pictures.example/a b",
    "http://pictures.example\t/",
    "http://pictures.example\x00.evil.example/",
    "http://pictures.example/" + "a" * 5000,
    "data:image/png;base64,AAAA",
    "s3://other/key",
    "s3://b",
    "s3://b/",
    "s3://b@other/key",
    "gs://b/key",
    "s3:://b/key",
    "simplecache::s3://b/key",
    "",
]


@pytest.mark.parametrize("url", HOSTILE, ids=lambda url: ascii(url[:50]))
def test_a_hostile_url_is_refused_before_anything_is_asked(url: str) -> None:
    assert len(HOSTILE) >= 40
    with pytest.raises(InvalidRequestError) as refused:
        ALLOWED.address(url)
    assert refused.value.fields[0].field == "url"


@pytest.mark.parametrize(
    ("url", "host", "port", "target", "private"),
    [
        ("http://pictures.example", "pictures.example", 80, "/", False),
        ("https://PICTURES.example/a/b.jpg?c=d&e=%20", "pictures.example", 443, "/a/b.jpg?c=d&e=%20", False),
        ("HTTPS://a.cdn.example:443/x", "a.cdn.example", 443, "/x", False),
        ("http://a.b.cdn.example/#top", "a.b.cdn.example", 80, "/", False),
        ("http://odd.example:8443?q", "odd.example", 8443, "/?q", False),
        ("http://pictures.example/@x:y", "pictures.example", 80, "/@x:y", False),
        ("http://pictures.example/ü", "pictures.example", 80, "/%C3%BC", False),
        ("http://127.0.0.1:8000/x", "127.0.0.1", 8000, "/x", True),
    ],
)
def test_what_is_listed_is_taken(url: str, host: str, port: int, target: str, private: bool) -> None:
    found = ALLOWED.address(url)
    assert isinstance(found, WebAddress)
    assert (found.host, found.port, found.target, found.private) == (host, port, target, private)
    assert ALLOWED.address(found.url) == found


def test_a_key_of_a_bucket_is_taken_as_it_is() -> None:
    assert ALLOWED.address("s3://b/a folder/ü::x.jpg") == BucketAddress("s3", "b", "a folder/ü::x.jpg")


def test_without_hosts_the_door_is_shut() -> None:
    with pytest.raises(InvalidRequestError, match="fetches no images"):
        Allowed([], [], []).address("http://pictures.example/")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        ("64:ff9b::808:808", True),
        ("127.0.0.1", False),
        ("127.8.9.1", False),
        ("0.0.0.0", False),
        ("10.1.2.3", False),
        ("172.31.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("100.100.100.200", False),
        ("168.63.129.16", False),
        ("192.0.0.192", False),
        ("192.88.99.1", False),
        ("198.18.0.1", False),
        ("203.0.113.5", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("::ffff:8.8.8.8", False),
        ("::ffff:127.0.0.1", False),
        ("64:ff9b::a9fe:a9fe", False),
        ("64:ff9b:1::808:808", False),
        ("2001::1", False),
        ("2001:db8::1", False),
        ("2002:7f00:1::", False),
        ("fc00::1", False),
        ("fd00:ec2::254", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("2001:4860:4860::8888%eth0", False),
        ("fec0::1", False),
        ("ff02::1", False),
        ("no address", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize(
    "entry",
    ["", "http://a.example", "a.example/", "A.example:x", "*", "*.com", "*.127.0.0.1", "a.*.example", "a:0",
     "a:70000", "2130706433", "127.1", "a.example.", "a_b.example", "[::1", "u@a.example"],
)  # fmt: skip
def test_a_host_that_cannot_be_listed_stops_the_service(entry: str) -> None:
    with pytest.raises(SettingsError, match=r"url_hosts: .*(is no host|two labels)"):
        load_settings({"url_hosts": f"b.example,{entry}"})


@pytest.mark.parametrize("entry", ["bucket", "s3:/b", "s3://b/folder", "http://b", "s3://*", "s3://B"])
def test_a_bucket_that_cannot_be_listed_stops_the_service(entry: str) -> None:
    with pytest.raises(SettingsError, match="is no bucket"):
        load_settings({"url_buckets": entry})


def test_the_printed_configuration_lists_them_again() -> None:
    given = {"url_hosts": "a.example,*.b.example:81", "url_buckets": "s3://shelf/", "cors_origins": "*"}
    printed = to_toml(load_settings(given))
    assert 'url_hosts = ["a.example", "*.b.example:81"]' in printed
    assert 'url_buckets = ["s3://shelf"]' in printed
    assert 'cors_origins = ["*"]' in printed
