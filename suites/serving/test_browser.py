"""The page at `/`, tried by hand: by a real browser that clicks, types and reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from fixtures import report
from fixtures.serving.browser import chromium, complaints
from fixtures.serving.checking import Has
from fixtures.serving.run import StartServer
from fixtures.serving.server import Server
from targets.api import Unavailable

if TYPE_CHECKING:
    from selenium.webdriver import Chrome

WAIT_S = 30
FORMS = ("sentiment", "ner", "qa", "summarization", "translation", "generation")
ENDPOINT_OF = {"summarization": "summarize", "translation": "translate", "generation": "generate"}
CHANGES = """
const log = document.getElementById("chat-log"), seen = window.seen = [];
const look = () => seen.push([performance.now(), log.lastElementChild ? log.lastElementChild.textContent.length : 0]);
new MutationObserver(look).observe(log, {childList: true, subtree: true, characterData: true});
"""
"""Notes when the last bubble of the chat changed, and how long it was then."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chrome]:
    """A real Chromium."""
    try:
        with chromium(tmp_path_factory.mktemp("profile")) as found:
            yield found
    except Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def page(browser: Chrome, served: Server) -> Page:
    """The page of the server under test, just opened."""
    if served.headers:
        pytest.skip("the page of a server with an API key cannot be tried: browsers bring none")
    return Page(browser, served.url)


class Page:
    """The page, opened anew."""

    def __init__(self, browser: Chrome, url: str) -> None:
        self.browser = browser
        complaints(browser)
        browser.get("about:blank")
        browser.get(url + "/")
        self.until(lambda: self.one("#tabs [role=tab]"), "the tabs are there")

    def one(self, selector: str) -> Any:
        """The first element that a selector finds; None without one."""
        found = self.browser.find_elements("css selector", selector)
        return found[0] if found else None

    def all(self, selector: str) -> list[Any]:
        """Every element that a selector finds."""
        return list(self.browser.find_elements("css selector", selector))

    def text(self, selector: str) -> str:
        """What an element shows."""
        found = self.one(selector)
        return "" if found is None else str(found.text)

    def until(self, holds: Any, what: str) -> Any:
        """Wait until something holds; returns it."""
        from selenium.webdriver.support.ui import WebDriverWait

        return WebDriverWait(self.browser, WAIT_S, 0.05).until(lambda _: holds(), what)

    def choose(self, task: str) -> None:
        """Click the tab of a task."""
        self.one(f"#tab-{task}").click()
        self.until(lambda: self.one(f"#panel-{task}").is_displayed(), f"the panel of {task} is shown")

    def fill(self, selector: str, text: str) -> None:
        """Type a text into a field that may hold another one."""
        field = self.one(selector)
        field.clear()
        field.send_keys(text)

    def show(self, name: str) -> None:
        """A screenshot, for the report."""
        report.attach_png(name, self.browser.get_screenshot_as_png())


@pytest.mark.parametrize("task", FORMS)
def test_each_task_answers(task: str, page: Page, has: Has) -> None:
    """The form of a task, sent as it comes, shows an answer and how long it took, and no error."""
    has(ENDPOINT_OF.get(task, task))
    page.choose(task)
    page.one(f"#{task}-run").click()
    page.until(lambda: page.text(f"#{task}-result").strip(), "there is a result")
    page.until(lambda: page.one(f"#{task}-run").is_enabled(), "the answer is whole")
    page.show(task)
    assert page.text(f"#{task}-error") == ""
    assert " ms" in page.text(f"#panel-{task} [role=status]")
    assert not complaints(page.browser)


def test_what_a_user_writes_is_what_is_answered(page: Page, has: Has) -> None:
    """Two lines of one's own get two answers, each beside its own line; markup in them is shown and not run."""
    has("sentiment")
    page.choose("sentiment")
    lines = ["I loved <b>every</b> minute.", "<img src=x onerror=alert(1)> It broke at once."]
    page.fill("#sentiment-text", "\n".join(lines))
    page.one("#sentiment-run").click()
    page.until(lambda: page.one("#sentiment-run").is_enabled() and page.text("#sentiment-result"), "the answer")
    shown = page.text("#sentiment-result")
    page.show("markup")
    assert all(line in shown for line in lines), f"{shown!r} does not show both lines as they were written"
    assert not page.all("#sentiment-result img"), "markup of the user became an element"
    assert len(page.all("#sentiment-result strong")) == 2


def test_an_error_is_shown(page: Page, has: Has) -> None:
    """A request that the server refuses shows the problem's own sentence, and the next one works."""
    has("translate")
    page.choose("translation")
    page.fill("#translation-length", "100000")
    page.one("#translation-run").click()
    said = page.until(lambda: page.text("#translation-error"), "an error is shown")
    page.show("an error")
    assert "max_length" in said, f"the page says {said!r}"
    assert "422" in said, f"the page says {said!r}"
    page.fill("#translation-length", "20")
    page.one("#translation-run").click()
    page.until(lambda: page.text("#translation-result"), "there is a result")
    assert page.text("#translation-error") == ""


def test_chat_streams_on_the_page(page: Page, has: Has) -> None:
    """A message is answered piece by piece before one's eyes; the chat remembers, and a new one does not."""
    has("chat")
    page.choose("chat")
    page.browser.execute_script(CHANGES)
    say(page, "Remember the number 47.")
    steps = page.browser.execute_script("return window.seen")
    say(page, "What is my number?")
    remembered = turns(page)[-1]
    page.show("chat")
    growing = [length for _, length in steps]
    assert len(set(growing)) >= 4, f"the answer grew in {len(set(growing))} steps: {steps}"
    assert not complaints(page.browser)
    page.one("#chat-reset").click()
    page.until(lambda: not turns(page), "the chat is empty")
    say(page, "What is my number?")
    assert turns(page)[-1] != remembered, f"a new chat answers {remembered!r} as the old one did"


def say(page: Page, text: str) -> None:
    """Send a message with Enter, and wait until its answer is whole."""
    count = len(turns(page))
    page.one("#chat-text").send_keys(text + "\n")
    page.until(lambda: len(turns(page)) >= count + 2 and page.one("#chat-send").is_enabled(), "the answer is whole")


def turns(page: Page) -> list[str]:
    """What was said, by both."""
    return [str(each.text) for each in page.all("#chat-log .turn")]


@pytest.mark.usefixtures("local")
def test_a_server_that_is_gone_is_told(browser: Chrome, own_server: StartServer) -> None:
    """When the server ends, the page says that it cannot be reached, instead of waiting for ever."""
    with own_server("--tasks", "sentiment") as server:
        page = Page(browser, server.url)
    page.one("#sentiment-run").click()
    said = page.until(lambda: page.text("#sentiment-error"), "an error is shown")
    page.show("the server is gone")
    assert "cannot be reached" in said


def test_the_document_is_read_offline(page: Page, served: Server) -> None:
    """The API's document at /docs shows its operations, with scripts from this server alone."""
    page.browser.get(served.url + "/docs")
    page.until(lambda: len(page.all(".opblock")) > 5, "the operations are shown")
    page.show("docs")
    assert not complaints(page.browser)


def test_the_page_is_whole(page: Page) -> None:
    """The page loads nothing from elsewhere, is named, and each of its fields has a label."""
    loaded = page.browser.execute_script("return performance.getEntriesByType('resource').map((each) => each.name)")
    host = page.browser.current_url.split("/")[2]
    elsewhere = [each for each in loaded if f"//{host}/" not in each and not each.startswith("data:")]
    assert not elsewhere, f"the page loads {elsewhere}"
    assert page.browser.title
    fields = page.all("textarea, input")
    unlabelled = [each.get_attribute("id") for each in fields if not each.get_property("labels")]
    assert not unlabelled, f"{unlabelled} have no label"
