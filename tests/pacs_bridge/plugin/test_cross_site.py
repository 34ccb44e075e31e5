"""Calls that a page of another site makes in a user's browser."""

from __future__ import annotations

import pytest

from pacs_bridge.plugin.cross_site import is_cross_site

HOST = {"host": "pacs.example:8042"}


@pytest.mark.parametrize(
    "headers",
    [
        {},
        HOST,
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none", **HOST},
        {**HOST, "origin": "http://pacs.example:8042"},
        {**HOST, "origin": "http://PACS.example:8042"},
        {"host": "pacs.example", "origin": "http://pacs.example"},
        {"host": "pacs.example:80", "origin": "http://pacs.example"},
        {"host": "[::1]:8042", "origin": "http://[::1]:8042"},
        {"host": "orthanc:8042", "x-forwarded-host": "pacs.example", "origin": "https://pacs.example"},
        {"host": "orthanc", "sec-fetch-site": "same-origin", "origin": "https://pacs.example"},
    ],
)  # fmt: skip
def test_programs_and_pages_of_orthanc_itself_are_let_in(headers: dict[str, str]) -> None:
    assert not is_cross_site(headers)


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "Cross-Site"},
        {"sec-fetch-site": "same-site", **HOST},  # such as another port of the same machine
        {"sec-fetch-site": "cross-site", **HOST, "origin": "http://pacs.example:8042"},
        {**HOST, "origin": "http://evil.example"},
        {**HOST, "origin": "http://pacs.example:3000"},
        {**HOST, "origin": "http://pacs.example.evil.example:8042"},
        {**HOST, "origin": "null"},
        {**HOST, "origin": ""},
        {**HOST, "origin": "http://[broken"},
        {"origin": "http://evil.example"},
        {"origin": "null", "host": ""},
        {"origin": "null", "host": "[broken"},
    ],
)
def test_pages_of_others_are_not(headers: dict[str, str]) -> None:
    assert is_cross_site(headers)
