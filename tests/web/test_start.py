"""The start of the page: the model that is asked for, and what a missing one gives."""

import pytest

import app
from resegnet.hub import MODEL_VARIABLE
from resegnet.web import serve


class NoModel:
    """Stands for `Segmenter`; remembers the arguments."""

    asked = None

    @classmethod
    def from_pretrained(cls, name, *, revision=None):
        cls.asked = (name, revision)
        raise OSError("first line.\nand a traceback")


@pytest.mark.parametrize(
    ("arguments", "environment", "asked"),
    [
        ([], None, (None, None)),
        ([], "", (None, None)),
        ([], "user/one", ("user/one", None)),
        (["--model", "user/two"], "user/one", ("user/two", None)),
        (["--revision", "v2"], "user/one", ("user/one", "v2")),
        ([], "user/one@v3", ("user/one", "v3")),
        (["--revision", "v2"], "user/one@v3", ("user/one", "v2")),
    ],
)
def test_which_model_is_asked_for(arguments, environment, asked, monkeypatch, capsys):
    monkeypatch.setattr(serve, "Segmenter", NoModel)
    if environment is None:
        monkeypatch.delenv(MODEL_VARIABLE, raising=False)
    else:
        monkeypatch.setenv(MODEL_VARIABLE, environment)
    assert app.main(arguments) == 1
    assert NoModel.asked == asked
    assert capsys.readouterr().err == f"The model {asked[0] or '(bundled)'} cannot be loaded: first line.\n"


def test_a_folder_may_have_an_at_sign_in_its_name(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setattr(serve, "Segmenter", NoModel)
    (tmp_path / "eyes@home").mkdir()
    assert app.main(["--model", "~/eyes@home"]) == 1
    assert NoModel.asked == ("~/eyes@home", None)


def test_the_reason_is_told_to_its_end(monkeypatch, capsys):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert app.main(["--model", f"user/{'retina-' * 8}vessels"]) == 1
    assert capsys.readouterr().err.endswith(
        "connect to the Internet (and unset HF_HUB_OFFLINE) once; after that it works offline.\n"
    )


@pytest.mark.slow
def test_a_missing_model_gives_one_line(tmp_path, capsys):
    assert app.main(["--model", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(tmp_path) in error


def test_a_revision_without_a_model_is_refused(monkeypatch, capsys):
    monkeypatch.delenv(MODEL_VARIABLE, raising=False)
    assert app.main(["--revision", "v1"]) == 1
    assert "only models of the Hub have one" in capsys.readouterr().err
