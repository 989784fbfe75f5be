"""The app as its user meets it: the form, the answer, a mistake; and in a browser, from upload to page."""

import asyncio
import os
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("gradio")
from browser import CHROMIUM, open_tab
from starlette.testclient import TestClient

from ecgcmr.app.serve import make_app, respond, serve


def test_answer__an_example_shows_predictions_beside_the_truth(model, hearts):
    name = next(name for name in hearts.examples() if name != "no diagnosis")
    page = respond(model, hearts, None, name, {"explain": "LVM"})
    assert page.startswith("<!DOCTYPE html>")
    subject = int(hearts.cohort.recordings["subject"].iloc[hearts.examples()[name]])
    assert hearts.truth(subject)[name] == 1.0
    row = page[page.index(f"<td>{name}</td>") :]
    assert row[: row.index("</tr>")].endswith("<td>yes</td>")
    for label in model.labels:
        assert f"<td>{label['name']}</td>" in page
    assert "Most similar hearts" in page
    assert "What LVM rests on" in page
    assert "No explanation" not in page
    assert page.count("not a medical device") == 1


def test_answer__a_file_is_predicted_as_by_the_api_and_gone(model, hearts, ecg_file):
    told = model.predict(ecg_file)
    page = respond(model, hearts, [str(ecg_file)], "my own file", {"age": "60", "sex": "female", "explain": "none"})
    assert not ecg_file.exists()
    assert f"<td>{told['LVEDV'].iloc[0]:.0f}</td>" in page
    assert '<th scope="col">truth</th>' not in page


@pytest.mark.parametrize(
    ("options", "words"),
    [({"age": "sixty"}, "age is &#x27;sixty&#x27;"), ({"age": "-3"}, "0 to 130"), ({"row": "1.5"}, "whole number")],
)
def test_answer__a_wrong_field_is_a_sentence(model, hearts, ecg_file, options, words):
    page = respond(model, hearts, [str(ecg_file)], "my own file", options)
    assert page.startswith("<p role='alert'")
    assert words in page
    assert not ecg_file.exists()


def test_answer__what_a_file_holds_is_never_markup(model, hearts, tmp_path):
    path = tmp_path / "<img src=x onerror=alert(1)>.xml"
    path.write_text("<x/>")
    assert "<img" not in respond(model, hearts, [str(path)], "my own file", {})


def test_server__answers_this_machine_alone_and_forbids_the_outside(model, hearts):
    with TestClient(make_app(model, hearts), base_url="http://127.0.0.1") as client:
        found = client.get("/")
        assert found.status_code == 200
        assert "default-src 'self'" in found.headers["content-security-policy"]
        assert client.get("/", headers={"host": "attacker.example"}).status_code == 400


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_browser__from_an_uploaded_file_to_the_page_without_a_request_outside(model, hearts, ecg_file, tmp_path):
    address = []
    arguments = (model, hearts, "127.0.0.1", 0, address.append)
    threading.Thread(target=serve, args=arguments, daemon=True).start()
    end = time.monotonic() + 60
    while not address:
        assert time.monotonic() < end, "the server did not start"
        time.sleep(0.1)
    asyncio.run(_use(address[0], ecg_file, tmp_path))
    kept = [path for path in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*") if path.is_file() and path.stat().st_size]
    assert kept == []


async def _use(address, ecg_file, tmp_path):
    async with open_tab(tmp_path / "profile", address) as tab:
        await tab.resize(1280, 900)
        await tab.until("!!document.querySelector('button.primary')")
        await tab.upload("input[type=file]", ecg_file)
        await tab.until("document.body.innerText.includes('mine.npz')")
        await tab.value("document.querySelector('button.primary').click()")
        await tab.until("!!document.querySelector('#answer iframe')")
        page = await tab.value("document.querySelector('#answer iframe').srcdoc")
        assert "Heart structure and function" in page
        for width in (1280, 390):
            await tab.resize(width, 900)
            await tab.screenshot(tmp_path / f"{width}.png")
            assert await tab.value("document.documentElement.scrollWidth <= innerWidth"), width
        outside = [url for url in tab.requests if not url.startswith((address, "data:", "blob:", "about:"))]
        assert outside == []
        refused = [message for message in tab.messages if "Content Security Policy" in message]
        assert refused == []
