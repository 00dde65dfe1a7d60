"""The page of a run in a real browser, while real pipelines run and fail."""

import json
import re
import time
from pathlib import Path

import pytest
from kfp import dsl

# What a browser says of a server that was killed.
GONE = "net::ERR_"


@dsl.component(base_image="python:3.11")
def prepare(gate: str) -> int:
    import os
    import time

    print("waiting for the gate", flush=True)
    while not os.path.exists(gate):
        time.sleep(0.05)
    print("the gate is open", flush=True)
    return 3


@dsl.component(base_image="python:3.11")
def fit(n: int, model: dsl.Output[dsl.Model]) -> None:
    print("fitting", n, flush=True)
    raise ValueError(f"{n} rows are <b>too few</b>")


@dsl.component(base_image="python:3.11")
def report(model: dsl.Input[dsl.Model]) -> None:
    print(model.uri)


@dsl.component(base_image="python:3.11")
def square(n: int) -> int:
    return n * n


@dsl.pipeline(name="nightly")
def nightly(gate: str):
    prepared = prepare(gate=gate)
    fitted = fit(n=prepared.output)
    report(model=fitted.outputs["model"])
    with dsl.ParallelFor([1, 2, 3], parallelism=2) as n:
        square(n=n)


def node(page, text):
    """The node of the graph that says this."""
    return page.get_by_role("link", name=text, exact=True)


def axe(page):
    """What axe-core finds wrong."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [(v["id"], [n["html"][:200] for n in v["nodes"]]) for v in found]


@pytest.fixture(scope="module")
def gate(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("gate") / "open"


@pytest.fixture
def failed(submit, gate):
    """A run that failed, made once for all tests that need one."""
    if not hasattr(test_live, "job"):
        gate.touch()
        test_live.job = submit(nightly, gate=str(gate))
    with pytest.raises(RuntimeError, match="too few"):
        test_live.job.wait()
    return test_live.job


def test_live(submit, watch, gate):
    """States, counts, the log and the failure come without a reload or a click."""
    job = submit(nightly, gate=str(gate))
    page = watch(job, "?step=prepare")
    page.evaluate("window.mark = 1")
    node(page, "prepare: Running").wait_for()
    assert node(page, "fit: Waiting").is_visible()
    page.get_by_role("region", name="Log").get_by_text("waiting for the gate").wait_for()
    node(page, "for-loop-2: Succeeded, 3/3").wait_for()
    assert page.locator("#failure").inner_text().strip() == ""

    gate.touch()
    node(page, "prepare: Succeeded").wait_for()
    node(page, "fit: Failed").wait_for()
    node(page, "report: Not run").wait_for()
    page.locator("#head").get_by_text("Failed", exact=True).wait_for()
    line = page.locator("#failure .line")
    line.wait_for()
    assert line.inner_text() == "ValueError: 3 rows are <b>too few</b>"
    assert line.evaluate("e => e.getBoundingClientRect().bottom < innerHeight")
    failure = page.locator("#failure").inner_text()
    assert "cause: user code" in failure
    assert "exit code 1" in failure
    name = job.resource_name.rsplit("/", 1)[1]
    assert f"tategu debug {name} fit" in failure
    page.get_by_role("region", name="Log").get_by_text("the gate is open").wait_for()
    assert page.evaluate("window.mark") == 1, "the page was loaded again"
    assert page.locator("#link").is_hidden()
    test_live.job = job


def test_looks_and_reads_well(failed, watch):
    """axe finds nothing, in light and dark, wide and narrow, and nothing sticks out."""
    for scheme in ("light", "dark"):
        for width in (1280, 400):
            size = {"width": width, "height": 900}
            page = watch(failed, color_scheme=scheme, viewport=size)
            node(page, "fit: Failed").wait_for()
            assert axe(page) == [], f"{scheme}, {width} wide"
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, f"{scheme}: {wide} pixels in {width}"
    page = watch("/console/runs")
    page.get_by_role("link", name="nightly").first.wait_for()
    assert axe(page) == []
    page = watch(failed, "?open=for-loop-2&step=for-loop-2")
    node(page, "square: Succeeded, 3/3").wait_for()
    assert axe(page) == []


def test_keys(failed, watch):
    """One stop of Tab in the graph; arrows go along it, Enter selects, Space opens."""
    page = watch(failed)
    node(page, "fit: Failed").wait_for()
    stops = page.locator('#graph .node a[tabindex="0"]')
    assert stops.count() == 1
    stops.focus()
    page.keyboard.press("ArrowUp")
    focused = "document.activeElement.getAttribute('aria-label')"
    assert page.evaluate(focused) == "prepare: Succeeded"
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="prepare", exact=True).wait_for()
    page.get_by_role("region", name="Log").get_by_text("the gate is open").wait_for()
    assert page.locator("#panel").get_by_text("Output", exact=True).is_visible()
    assert "step=prepare" in page.url
    assert page.evaluate(focused) == "prepare: Succeeded"
    page.keyboard.press("ArrowDown")
    assert page.evaluate(focused) == "fit: Failed"
    page.keyboard.press("ArrowUp")
    before = page.evaluate(focused)
    page.keyboard.press("ArrowLeft")
    if page.evaluate(focused) == before:
        page.keyboard.press("ArrowRight")
    assert page.evaluate(focused) == "for-loop-2: Succeeded, 3/3"
    page.keyboard.press("End")
    assert page.evaluate(focused) == "report: Not run"
    page.keyboard.press("Home")
    assert page.evaluate(focused) == "for-loop-2: Succeeded, 3/3"
    page.keyboard.press(" ")
    node(page, "square: Succeeded, 3/3").wait_for()
    page.go_back()
    node(page, "square: Succeeded, 3/3").wait_for(state="hidden")
    page.go_back()
    page.get_by_role("heading", name="fit", exact=True).wait_for()


def test_iterations(failed, watch):
    """From a loop to one of its iterations, to a task in it, to the list of tasks."""
    page = watch(failed)
    node(page, "for-loop-2: Succeeded, 3/3").click()
    page.get_by_role("heading", name=re.compile("3 iterations")).wait_for()
    page.locator("#rounds").get_by_role("link", name="for-loop-2-1", exact=True).click()
    page.get_by_role("heading", name="for-loop-2-1").wait_for()
    page.get_by_label("Name").fill("square")
    page.get_by_role("button", name="Show", exact=True).click()
    page.get_by_text("1–3 of 3", exact=True).wait_for()
    page.locator("#tasks tbody a").first.click()
    page.get_by_role("heading", name="square", exact=True).wait_for()


def test_without_scripts(failed, watch):
    """What failed, the graph, the tasks, and links that lead on."""
    page = watch(failed, java_script_enabled=False)
    assert "too few" in page.locator("#failure .line").inner_text()
    assert node(page, "fit: Failed").is_visible()
    assert page.locator("#tasks tbody tr").count() == 6
    page.locator("#tasks").get_by_role("link", name="prepare").click()
    assert "the gate is open" in page.locator("#log").inner_text()


def test_events_do_not_get_through(submit, watch, browser, gate, tmp_path):
    """Where a proxy swallows streams, the page asks again and again, and says so."""
    closed = tmp_path / "closed"
    job = submit(nightly, gate=str(closed))
    page = watch("/console/runs", expect=GONE)
    page.route("**/tategu/v1/run/events?*", lambda route: route.abort())
    page.goto(page.url.replace("/console/runs", f"/console/{job.resource_name}"))
    page.get_by_text("Live events do not get through").wait_for()
    node(page, "prepare: Running").wait_for()
    closed.touch()
    node(page, "fit: Failed").wait_for()
    page.locator("#failure .line").wait_for()


def shell(tasks, command):
    """A compiled pipeline of programs: names with those that each waits for."""
    return json.dumps(
        {
            "schemaVersion": "2.1.0",
            "sdkVersion": "kfp-2.17.0",
            "pipelineInfo": {"name": "shell"},
            "root": {
                "dag": {
                    "tasks": {
                        name: {
                            "taskInfo": {"name": name},
                            "componentRef": {"name": "comp-x"},
                            "dependentTasks": after,
                        }
                        for name, after in tasks.items()
                    }
                }
            },
            "components": {"comp-x": {"executorLabel": "x"}},
            "deploymentSpec": {
                "executors": {"x": {"container": {"image": "shell", "command": [command]}}}
            },
        }
    )


def test_server_restarts(submit, watch, place, tmp_path):
    """kill -9 under an open page: it says so, connects again, and knows what it missed."""
    gates = [tmp_path / "first", tmp_path / "second"]
    command = f"""echo begun
        while [ ! -e {gates[0]} ]; do sleep 0.05; done; echo more
        while [ ! -e {gates[1]} ]; do sleep 0.05; done; echo last"""
    job = submit(shell({"a": [], "b": ["a"]}, command))
    page = watch(job, "?step=a", expect=GONE)
    page.evaluate("window.mark = 1")
    node(page, "a: Running").wait_for()
    page.get_by_role("region", name="Log").get_by_text("begun").wait_for()
    place.kill()
    page.get_by_text("Disconnected. Trying again…").wait_for()
    gates[0].touch()
    place.start()
    page.get_by_role("region", name="Log").get_by_text("more").wait_for()
    page.locator("#link").wait_for(state="hidden")
    gates[1].touch()
    node(page, "a: Succeeded").wait_for()
    node(page, "b: Succeeded").wait_for()
    page.get_by_role("region", name="Log").get_by_text("last").wait_for()
    page.locator("#head").get_by_text("Succeeded", exact=True).wait_for()
    text = page.get_by_role("region", name="Log").inner_text()
    assert text.split() == ["begun", "more", "last"]
    assert page.evaluate("window.mark") == 1, "the page was loaded again"


def test_many_steps(submit, watch, capsys):
    """300 tasks in ten layers are drawn while they run."""
    tasks = {"first": []}
    for layer in range(10):
        for i in range(30):
            before = [f"t{layer - 1}-{i}", f"t{layer - 1}-{i * 7 % 30}"]
            tasks[f"t{layer}-{i}"] = sorted(set(before)) if layer else ["first"]
    job = submit(shell(tasks, "sleep 0.2"))
    start = time.monotonic()
    page = watch(job)
    node(page, "first: Succeeded").wait_for()
    assert page.locator("#graph .node").count() == 301
    paint = page.evaluate(
        "performance.getEntriesByName('first-contentful-paint')[0].startTime"
    )
    assert page.locator("#tasks tbody tr").count() == 50
    with capsys.disabled():
        spent = time.monotonic() - start
        print(f"\n300 tasks: first paint {paint:.0f} ms, live {spent:.1f} s", end=" ")
    job.cancel()
    page.locator("#head").get_by_text("Cancelled", exact=True).wait_for()


def test_runs(failed, watch):
    """The list leads to the page; filters are in its address."""
    page = watch("/console/runs")
    page.get_by_label("State").select_option("Failed")
    page.get_by_label("Name").fill("NIGHT")
    page.get_by_role("button", name="Show").click()
    name = failed.resource_name.rsplit("/", 1)[1]
    row = page.get_by_role("row", name=re.compile(name))
    assert "too few" in row.inner_text()
    row.get_by_role("link", name="nightly").click()
    node(page, "fit: Failed").wait_for()
