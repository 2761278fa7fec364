"""Which pages may ask for a download: not those that came here by DNS rebinding."""

import pytest

from champ.origin import is_trusted

ANY = "0.0.0.0,::"  # what --listen alone means


@pytest.mark.parametrize(
    "host, origin",
    [
        ("127.0.0.1:8188", "http://127.0.0.1:8188"),
        ("localhost:8188", "http://localhost:8188"),
        ("LOCALHOST.:8188", "http://localhost.:8188"),
        ("comfy.localhost:8188", "http://comfy.localhost:8188"),
        ("[::1]:8188", "http://[::1]:8188"),
        ("[fe80::1%eth0]:8188", None),
        ("192.168.1.20:8188", "http://192.168.1.20:8188"),  # from another machine, with --listen
        ("203.0.113.7", "http://203.0.113.7"),
        ("workstation:8188", "http://workstation:8188"),
        ("workstation.local:8188", "http://workstation.local:8188"),
        ("gpu.home.arpa", "http://gpu.home.arpa"),
        ("abc-8188.proxy.example.net", "https://abc-8188.proxy.example.net"),  # a proxy with a certificate
        ("127.0.0.1:8188", None),  # a program
    ],
)
def test_pages_of_this_server(host, origin):
    assert is_trusted(host, origin, ANY, None)


@pytest.mark.parametrize(
    "host, origin",
    [
        ("evil.example:8188", "http://evil.example:8188"),
        ("evil.example", None),
        ("evil.example", "https://other.example"),  # an https page may not ask for http, but may be made to look so
        ("evil.example", "http://127.0.0.1"),
        ("127.0.0.1.evil.example:8188", "http://127.0.0.1.evil.example:8188"),
        ("localhost.evil.example", "http://localhost.evil.example"),
        ("evil-local.example", "http://evil-local.example"),
        ("", None),
        ("[::1", "http://[::1"),
        ("@", None),
        ("evil.example@", "https://evil.example"),
    ],
)
def test_pages_from_elsewhere(host, origin):
    assert not is_trusted(host, origin, ANY, None)


@pytest.mark.parametrize(
    "listen, cors, trusted",
    [
        ("127.0.0.1", None, False),
        ("127.0.0.1,comfy.example.net", None, True),
        ("127.0.0.1", "https://comfy.example.net:8443", True),
        ("127.0.0.1", "http://other.example.net", False),
        ("127.0.0.1", "*", True),
    ],
)
def test_names_that_the_user_gave(listen, cors, trusted):
    assert is_trusted("comfy.example.net:8188", "http://comfy.example.net:8188", listen, cors) == trusted
