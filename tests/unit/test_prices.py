"""Prices as they are written: dated defaults, what stands over them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3flow.config import Settings, load
from s3flow.config.prices import AWS_GET, AWS_PUT, EndpointPrices, PriceSettings, prices_of
from s3flow.config.settings import S3Endpoint
from s3flow.engine.costs import Egress
from s3flow.errors import ConfigError

ENDPOINT = '[endpoints.r2]\ntype = "s3"\nurl = "https://r2.example.com"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "config.toml"


def loaded(file: Path, text: str, **environ: str) -> Settings:
    file.write_text(text)
    return load(file, environ)


def problem(file: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(file, text)
    return str(caught.value)


def own(settings: Settings) -> EndpointPrices:
    endpoint = settings.endpoints["r2"]
    assert isinstance(endpoint, S3Endpoint)
    return endpoint.prices


def test_what_is_written_changes_some_prices_and_keeps_the_others(file: Path) -> None:
    prices = loaded(
        file,
        "[prices]\nget_requests = { STANDARD = 1.5 }\nrestore = { glacier = { bulk = 0.001 } }\n"
        'egress_internet = 0.12\ncurrency = "EUR"\n',
    ).prices
    assert prices.get_requests == AWS_GET | {"STANDARD": 1.5}
    assert prices.restore["GLACIER"] == {"Standard": 0.01, "Bulk": 0.001, "Expedited": 0.03}
    assert prices.put_requests == AWS_PUT
    assert (prices.egress_internet, prices.currency) == (0.12, "EUR")


def test_the_environment_sets_prices(file: Path) -> None:
    prices = loaded(file, "", S3FLOW__PRICES__GET_REQUESTS__STANDARD_IA="0.5").prices
    assert prices.get_requests == AWS_GET | {"STANDARD_IA": 0.5}


def test_other_stores_than_aws_charge_only_what_they_are_said_to(file: Path) -> None:
    text = ENDPOINT + "prices = { egress_internet = 0.01, put_requests = { STANDARD = 4.5 } }\n"
    settings = loaded(file, text)
    found = prices_of(settings.prices, own(settings), is_aws=False)
    assert found.egress[Egress.INTERNET] == 0.01
    assert found.put == {"STANDARD": 4.5}
    assert (found.listing, found.get, found.restore) == (0.0, {}, {})
    assert prices_of(settings.prices, EndpointPrices(), is_aws=False).is_free


def test_an_endpoint_of_aws_has_the_common_prices_but_for_its_own(file: Path) -> None:
    settings = loaded(file, ENDPOINT + "[endpoints.r2.prices]\nlist_requests = 0\n")
    found = prices_of(settings.prices, own(settings), is_aws=True)
    assert found.listing == 0
    assert found.put == AWS_PUT
    assert found.egress == {Egress.INTERNET: 0.09, Egress.REGION: 0.02}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[prices]\negress_internet = -1\n", ["prices.egress_internet", "less than 0"]),
        ("[prices]\nget_requests = { STANDARD = nan }\n", ["prices.get_requests", "STANDARD"]),
        ("[prices]\negres = 1\n", ["prices.egres", "egress"]),
        ('[prices]\negress = "far"\n', ["prices.egress", "internet"]),
        ("[prices]\nrestore = { GLACIER = { Slow = 1 } }\n", ["prices.restore", "Bulk"]),
        (ENDPOINT + "prices = { lst_requests = 1 }\n", ["endpoints.r2.prices", "list_requests"]),
    ],
)
def test_what_is_no_price_is_told_with_its_place(file: Path, text: str, words: list[str]) -> None:
    told = problem(file, text)
    assert all(word in told for word in words), told
    assert len(told.splitlines()) == 1


def test_defaults_say_when_they_were_right() -> None:
    assert PriceSettings().dated.startswith("2026")
