"""The web page of the app: gradio for the controls, one framed page for the answer, and nothing from outside."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgcmr.app.answer import Question, answer
from ecgcmr.app.hearts import Hearts
from ecgcmr.app.uploads import read_upload
from ecgcmr.report.page import DISCLAIMER, report_html

if TYPE_CHECKING:
    from ecgcmr.hub.model import LoadedModel

LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_UPLOAD = "64mb"
_POLICY = (  # a browser refuses what this does not name, so that no page of ours can call out
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; font-src 'self' data:; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'; connect-src 'self' ws: ; frame-src 'self' data: blob:; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'"
)
_AS_STATED = "as the file states"
_UNKNOWN = "unknown"
_NONE = "none"
_OWN = "my own file"
_EMPTY = (
    "<p style='padding:2rem;color:#52606d'>Drop an ECG file or choose an example, then press Read the ECG. "
    f"{DISCLAIMER}</p>"
)


def make_app(model: LoadedModel, hearts: Hearts, host: str = "127.0.0.1") -> Any:
    """Make the web application (ASGI).

    Args:
        model: The model.
        hearts: What it compares with.
        host: Address that it will be served at; at a loopback address requests for other hosts are refused.

    Raises:
        ValueError: Without gradio: says how to install it.
    """
    gradio = need_gradio()
    uploads = tempfile.TemporaryDirectory(prefix="ecgcmr-uploads-")
    os.environ["GRADIO_TEMP_DIR"] = uploads.name
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    web = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    web.state.uploads = uploads  # removed with the application

    @web.middleware("http")
    async def _only_from_here(request: Any, call_next: Callable[[Any], Any]) -> Any:
        response = await call_next(request)
        response.headers["Content-Security-Policy"] = _POLICY
        response.headers["Referrer-Policy"] = "no-referrer"
        response.headers["Cache-Control"] = "no-store"
        return response

    if host in LOOPBACK:
        web.add_middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK))
    theme = gradio.themes.Base(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return gradio.mount_gradio_app(
        web, _blocks(gradio, model, hearts), path="/", theme=theme, max_file_size=MAX_UPLOAD, footer_links=[],
        server_name=host, ssr_mode=False, enable_monitoring=False, show_error=True, css=_CSS,
    )  # fmt: skip


def need_gradio() -> Any:
    """Import gradio, without its telemetry.

    Raises:
        ValueError: It is not installed; says how to.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio
    except ImportError:
        raise ValueError("the app needs gradio: pip install 'ecgcmr[app]'") from None
    return gradio


def serve(model: LoadedModel, hearts: Hearts, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve the app until Ctrl-C.

    Args:
        model: The model.
        hearts: What it compares with.
        host: Address.
        port: Port; 0 takes a free one.
        ready: Told the address of the page, as soon as it can be opened.

    Raises:
        ValueError: If the port is taken or the address is not this machine's.
    """
    import uvicorn

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise ValueError(f"--host {host} --port {port} cannot be used: {error}; try --port 0") from None
        listener.listen()
        web = make_app(model, hearts, host)
        name = f"[{host}]" if ":" in host else host
        ready(f"http://{name}:{listener.getsockname()[1]}/")
        uvicorn.Server(uvicorn.Config(web, log_level="warning")).run(sockets=[listener])


def respond(
    model: LoadedModel,
    hearts: Hearts,
    files: Sequence[str] | None,
    example: str,
    options: dict[str, Any],
) -> str:
    """The answer to what stands in the form, as a page; a mistake is a sentence instead of a page.

    Args:
        model: The model.
        hearts: What it compares with.
        files: Uploaded files; they are gone afterwards.
        example: Name of an example, or `my own file`.
        options: unit, row, sex, age, explain, as the form gives them.
    """
    try:
        question = _question(hearts, files or (), example, options)
        sections = answer(model, hearts, question)
    except (ValueError, FileNotFoundError) as error:
        return f"<p role='alert' style='padding:1.2rem;border-left:4px solid #b8430b'>{escape(str(error))}</p>"
    finally:
        for file in files or ():
            Path(file).unlink(missing_ok=True)
    config = model.config
    facts = {"model": config["name"], "trained on": config["provenance"], "compared with": hearts.cohort.schema.name}
    return report_html(f"ECG: {question.name}", "", sections, facts)


def _question(hearts: Hearts, files: Sequence[str], example: str, options: dict[str, Any]) -> Question:
    explain = None if options.get("explain") in (None, _NONE) else str(options["explain"])
    examples = hearts.examples()
    if example in examples:
        row = examples[example]
        subject = int(hearts.cohort.recordings["subject"].iloc[row])
        age, sex = hearts.age_and_sex(subject)
        return Question(hearts.cohort.recording(row), f"example, {example}", sex, age, explain, subject)
    unit, sex = options.get("unit"), options.get("sex")
    age, row = _number(options.get("age"), "age", float), _number(options.get("row"), "row", int)
    recording = read_upload(files, None if unit in (None, _AS_STATED) else str(unit), row)
    return Question(recording, "your file", None if sex in (None, _UNKNOWN) else str(sex), age, explain)


def _number(value: Any, name: str, kind: type) -> Any:
    """What stands in a field of the form as a number; None where nothing does."""
    text = str(value or "").strip()
    if not text:
        return None
    try:
        return kind(text)
    except ValueError:
        raise ValueError(
            f"{name} is {text!r}, expected a {'whole ' if kind is int else ''}number, or nothing"
        ) from None


def _blocks(gradio: Any, model: LoadedModel, hearts: Hearts) -> Any:
    names = [label["name"] for label in model.labels]
    table = hearts.cohort.subjects
    sexes = sorted({str(one) for one in table["sex"].dropna()}) if "sex" in table else []

    def run(files: Any, example: str, unit: str, row: Any, sex: str, age: Any, explain: str) -> tuple[str, None]:
        options = {"unit": unit, "row": row, "sex": sex, "age": age, "explain": explain}
        return _framed(respond(model, hearts, files, example, options)), None

    with gradio.Blocks(title="ecgcmr", analytics_enabled=False, delete_cache=(60, 60), fill_width=True) as blocks:
        gradio.Markdown("# What an ECG tells about the heart")
        with gradio.Row():
            with gradio.Column(scale=1, min_width=280):
                files = gradio.File(label="ECG file (any supported format; WFDB: .hea and .dat)", file_count="multiple")
                example = gradio.Dropdown([_OWN, *hearts.examples()], value=_OWN, label="or an example")
                with gradio.Row():
                    sex = gradio.Dropdown([_UNKNOWN, *sexes], value=_UNKNOWN, label="Sex", min_width=110)
                    age = gradio.Textbox(label="Age [years]", placeholder="unknown", min_width=110)
                explain = gradio.Dropdown([_NONE, *names], value=names[0] if names else _NONE, label="Explain")
                with gradio.Accordion("For files that do not state it", open=False):
                    unit = gradio.Dropdown([_AS_STATED, "mV", "uV", "V"], value=_AS_STATED, label="Unit")
                    row = gradio.Textbox(label="Row of an array of recordings, from 0", placeholder="the only one")
                button = gradio.Button("Read the ECG", variant="primary")
            with gradio.Column(scale=3, min_width=320):
                page = gradio.HTML(_EMPTY, elem_id="answer")
        button.click(run, [files, example, unit, row, sex, age, explain], [page, files], api_name=False)
    return blocks


def _framed(html: str) -> str:
    """A whole page in a frame of its own, so that neither style sheet touches the other; a short message as it is."""
    if not html.startswith("<!DOCTYPE"):
        return html
    return f'<iframe title="Answer" sandbox="allow-modals" srcdoc="{escape(html, quote=True)}"></iframe>'


_CSS = """
#answer iframe { width: 100%; height: min(88vh, 1400px); border: 1px solid #dde3ea; border-radius: 8px; }
footer { display: none !important; }
"""
