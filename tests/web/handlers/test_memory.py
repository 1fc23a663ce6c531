"""Results in memory: how many, for how long, and for whom."""

import threading
import time
from datetime import datetime, timedelta
from pathlib import Path

import gradio as gr
from gradio import EventData
from gradio.state_holder import StateHolder
from PIL import Image
from support import PATIENCE_S
from support.handlers import settings
from support.stand_in import DarkOnGreen
from support.synthetic import draw_fundus

from resegnet import Config, Segmenter
from resegnet.web.handlers import Handlers
from resegnet.web.models import Models
from resegnet.web.recent import RecentResults
from resegnet.web.sessions import sweep_sessions
from resegnet.web.visits import Visits


def paths_of(results):
    return [path for path, _ in results._results]


def test_results_in_memory_are_bounded_and_the_longest_unused_goes_first(tmp_path):
    network = DarkOnGreen()
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    for path in paths:
        Image.fromarray(draw_fundus(3, (130, 130)).image).save(path)
    two = 2 * 130 * 130 * (3 + 4 + 1)  # photograph, probability, field
    results = RecentResults(Models(Segmenter(network, Config(input_size=64))), limit_bytes=two)
    a, b, c = paths
    for path, calls in [(a, 1), (b, 2), (a, 2), (c, 3), (a, 3), (b, 4)]:
        results(path)
        assert network.calls == calls
    results.forget(a)
    results(b)
    assert network.calls == 4
    results(a)
    assert network.calls == 5


def test_what_a_result_keeps_once_it_was_asked_for_counts_too(tmp_path):
    network = DarkOnGreen()
    paths = [tmp_path / f"{k}.png" for k in range(2)]
    for path in paths:
        Image.fromarray(draw_fundus(3, (130, 130)).image).save(path)
    two = 2 * 130 * 130 * (3 + 4 + 1)
    results = RecentResults(Models(Segmenter(network, Config(input_size=64))), limit_bytes=two)
    assert results(paths[0]).centrelines
    results(paths[1])
    assert paths_of(results) == paths[1:]


def test_results_in_memory_go_when_their_time_is_over(segmenter, network, photograph, reference):
    now = [0.0]
    results = RecentResults(Models(segmenter), keep_s=3600, clock=lambda: now[0])
    results(photograph)
    now[0] = 1800
    results(reference)
    for now[0], kept in [(3599, [photograph, reference]), (3600, [reference]), (5400, [])]:
        results.sweep()
        assert paths_of(results) == kept
    results(photograph)
    assert network.calls == 3


def test_they_go_by_themselves(segmenter, photograph):
    results = RecentResults(Models(segmenter), keep_s=0)
    results(photograph)
    sweeper = results._sweeper
    if sweeper is not None:  # it is done otherwise
        sweeper.join(PATIENCE_S)
    assert not results._results


def test_two_who_wait_for_one_photograph_take_one_forward_pass(segmenter, network, photograph, reference):
    results = RecentResults(Models(segmenter))
    network.go_on.clear()
    threads = [threading.Thread(target=results, args=[path]) for path in (reference, photograph, photograph)]
    for thread in threads:
        thread.start()
    while network.calls == 0:
        time.sleep(0.01)
    network.go_on.set()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert network.calls == 2


def test_a_session_gives_its_memory_back_when_it_opens_another_photograph(segmenter, photograph, reference):
    handlers = Handlers(Models(segmenter), examples=[reference])
    _, files = handlers.show(photograph, [], None)
    handlers.show(reference, files, settings(photograph))
    assert paths_of(handlers.results) == [reference]
    handlers.show(photograph, [reference], settings(reference))  # examples stay for the other sessions
    assert set(paths_of(handlers.results)) == {reference, photograph}
    handlers.show(reference, [], settings(photograph))  # nobody drops what is another session's
    assert set(paths_of(handlers.results)) == {reference, photograph}


def test_a_visit_is_found_by_its_secret_for_an_hour(segmenter, photograph, reference):
    now = [0.0]
    visits = Visits(3600, clock=lambda: now[0])
    visits.keep("a" * 32, ["eye.png"])
    visits.keep(None, ["other.png"])
    now[0] = 3599
    assert visits.find("a" * 32) == ["eye.png"]
    assert visits.find("b" * 32) == visits.find(None) == []
    now[0] = 3600
    assert visits.find("a" * 32) == []

    handlers = Handlers(Models(segmenter), [])
    handlers.show(photograph, [], settings(None, visit="c" * 32))
    shown, files = handlers.restore([], settings(None, visit="c" * 32, reopen=True))
    assert (shown["photo"], files[-1]) == (photograph, photograph)
    assert handlers.restore([], settings(None, visit="c" * 32)) == ({"request": 7, "kept": True}, [photograph])
    for secret in ("d" * 32, "c", None, ["c" * 32]):
        assert handlers.restore([], settings(None, visit=secret, reopen=True)) == ({"request": 7, "nothing": True}, [])
    again, files = handlers.show_again([], settings(None, visit="c" * 32), EventData(None, {"photo": photograph}))
    assert (again["photo"], files) == (photograph, [photograph])  # of a tab whose reload was cancelled
    handlers.show(reference, files, settings(None, visit="c" * 32))
    Path(photograph).unlink()
    kept, files = handlers.restore([], settings(None, visit="c" * 32, reopen=True))
    assert (kept["photo"], files) == (reference, [reference])
    gone, _ = handlers.show_again([photograph], settings(None), EventData(None, {"photo": photograph}))
    assert "no longer on the server" in gone["error"]  # although its result is in memory
    Path(reference).unlink()
    assert handlers.restore([], settings(None, visit="c" * 32, reopen=True))[0]["nothing"]
    gone, files = handlers.show_again([], settings(None), EventData(None, {"photo": reference}))
    assert "no longer on the server" in gone["error"] and files == []  # a file of another session


def test_what_gradio_keeps_of_a_session_goes_with_its_files():
    with gr.Blocks() as page:
        gr.Textbox()
    holder = StateHolder()
    holder.set_blocks(page)
    assert holder["old"] is holder["old"] and holder["new"]
    holder.time_last_used["old"] -= timedelta(hours=2)
    sweep_sessions(page, datetime.now() - timedelta(hours=1))
    assert "new" in holder and "old" not in holder and list(holder.time_last_used) == ["new"]


def test_a_photograph_beside_the_one_on_the_page_leaves_both_in_memory(segmenter, network, photograph, tmp_path):
    second = str(tmp_path / "second.png")
    Image.fromarray(draw_fundus(2, (140, 170)).image).save(second)
    handlers = Handlers(Models(segmenter), [])
    _, files = handlers.show(photograph, [], settings(None))
    _, files = handlers.show(second, files, settings(photograph))
    beside = handlers.show_beside(files, settings(photograph, request=3))
    assert (beside["request"], beside["photo"], beside["height"]) == (3, photograph, 150)
    calls = network.calls
    for path in files:
        assert handlers.measure(files, settings(path))["measures"]["vessel_density"] > 0
    assert network.calls == calls
    assert "no longer on the server" in handlers.show_beside([second], settings(photograph))["error"]
    handlers.results.forget(photograph)
    Path(photograph).unlink()
    assert "no longer on the server" in handlers.show_beside(files, settings(photograph))["error"]
