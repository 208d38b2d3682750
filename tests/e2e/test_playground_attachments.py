"""What is pasted, dropped and picked on the playground page goes with the message, and is shown in it."""

from __future__ import annotations

import base64
import zlib
from struct import pack
from typing import TYPE_CHECKING, Final

import pytest

from tests.e2e.panels import PATIENCE, answers, live, panel, session_ids
from tests.e2e.streams import call

pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
from playwright.sync_api import expect

if TYPE_CHECKING:
    from playwright.sync_api import FilePayload, Locator, Page

    from tests.e2e.conftest import ServerProcess

pytestmark = pytest.mark.browser

WORDS: Final = "water under the bridge, " * 100  # more than 2 000 characters


def png(width: int = 40, height: int = 30) -> bytes:
    """A picture, written out."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return pack(">I", len(data)) + kind + data + pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\x20\x80\xd0" * width for _ in range(height))
    head = chunk(b"IHDR", pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def bring(conversation: Locator, how: str, name: str, media_type: str, content: bytes) -> None:
    """Have a file pasted into the field, or dropped onto the pane."""
    target = ".composer textarea" if how == "paste" else ".transcript"
    script = """(element, [how, name, type, content]) => {
        const bytes = Uint8Array.from(atob(content), (each) => each.charCodeAt(0));
        const brought = new DataTransfer();
        brought.items.add(new File([bytes], name, { type }));
        const event = how === "paste"
          ? new ClipboardEvent("paste", { clipboardData: brought, bubbles: true, cancelable: true })
          : new DragEvent("drop", { dataTransfer: brought, bubbles: true, cancelable: true });
        element.dispatchEvent(event);
        return event.defaultPrevented;
    }"""
    given = [how, name, media_type, base64.b64encode(content).decode()]
    assert conversation.locator(target).evaluate(script, given)


def paste_text(conversation: Locator, text: str) -> bool:
    """Whether the page took it out of the browser's hands."""
    script = """(element, text) => {
        const brought = new DataTransfer();
        brought.setData("text/plain", text);
        const event = new ClipboardEvent("paste", { clipboardData: brought, bubbles: true, cancelable: true });
        element.dispatchEvent(event);
        return event.defaultPrevented;
    }"""
    taken: bool = conversation.locator(".composer textarea").evaluate(script, text)
    return taken


def send(conversation: Locator, text: str = "") -> None:
    field = conversation.locator(".composer textarea")
    field.fill(text)
    field.press("Enter")


def question(conversation: Locator) -> Locator:
    return conversation.locator(".message[data-role=user]").last


def opened(page: Page) -> Locator:
    conversation = panel(page, "a")
    live(conversation)
    return conversation


def test_what_is_attached_stays_with_its_conversation(page: Page) -> None:
    conversation = opened(page)
    chip = conversation.locator(".attached li")
    bring(conversation, "paste", "weir.png", "image/png", png())
    assert chip.count() == 1
    conversation.locator(".fresh").click()
    conversation.get_by_text("Nothing said yet.").wait_for()
    assert chip.count() == 0
    send(conversation, "Something else.")
    answers(conversation, "complete").wait_for(timeout=PATIENCE)
    assert question(conversation).locator("img").count() == 0
    page.go_back()
    chip.wait_for(timeout=PATIENCE)
    live(conversation)
    send(conversation, "What is this?")
    question(conversation).locator("img.picture").wait_for(timeout=PATIENCE)
    assert chip.count() == 0


def test_a_stop_breaks_off_what_is_on_its_way_and_gives_all_of_it_back(page: Page) -> None:
    conversation = opened(page)
    chip = conversation.locator(".attached li")
    field = conversation.locator(".field")
    page.route("**/files*", lambda _: None)  # the line takes the file, and it never arrives
    bring(conversation, "paste", "weir.png", "image/png", png())
    with page.expect_request("**/files*") as asked:
        send(conversation, "What is this?")
    send(conversation, "And who made it?")
    conversation.locator(".notice").get_by_text("Sending weir.png").wait_for(timeout=PATIENCE)
    conversation.locator(".going li").nth(1).wait_for(timeout=PATIENCE)
    assert conversation.locator(".going li").all_inner_texts() == ["What is this?", "And who made it?"]
    with page.expect_event("requestfailed", lambda request: request == asked.value):
        conversation.locator(".stop").click()
    conversation.get_by_text("Stopped before it was sent.").wait_for(timeout=PATIENCE)
    assert field.input_value() == "What is this?\nAnd who made it?"
    conversation.locator(".going").wait_for(state="hidden")
    assert chip.count() == 1
    page.unroute("**/files*")
    field.press("Enter")
    question(conversation).locator("img.picture").wait_for(timeout=PATIENCE)
    assert conversation.locator(".message[data-role=user]").count() == 1


def test_a_file_on_its_way_holds_up_no_other_conversation_and_is_stopped_in_its_own(page: Page) -> None:
    conversation = opened(page)
    page.route("**/files*", lambda _: None)
    bring(conversation, "paste", "weir.png", "image/png", png())
    with page.expect_request("**/files*"):
        send(conversation, "What is this?")
    conversation.locator(".fresh").click()
    conversation.get_by_text("Nothing said yet.").wait_for()
    assert conversation.locator(".stop").is_disabled()
    send(conversation, "Something else.")
    answers(conversation, "complete").wait_for(timeout=PATIENCE)
    page.go_back()
    live(conversation)
    conversation.locator(".stop").click()
    conversation.locator(".attached li").wait_for(timeout=PATIENCE)
    assert conversation.locator(".field").input_value() == "What is this?"
    assert conversation.locator(".message").count() == 0


@pytest.mark.parametrize("how", ["paste", "drop", "pick"])
def test_a_picture_goes_with_the_message_and_is_shown_in_it(page: Page, how: str) -> None:
    conversation = opened(page)
    if how == "pick":
        picked: FilePayload = {"name": "weir.png", "mimeType": "image/png", "buffer": png()}
        conversation.locator(".composer input[type=file]").set_input_files(picked)
    else:
        bring(conversation, how, "weir.png", "image/png", png())
    chip = conversation.locator(".attached li")
    assert chip.inner_text().split()[0] == "weir.png"
    send(conversation, "What is this?")
    picture = question(conversation).locator("img.picture")
    picture.wait_for(timeout=PATIENCE)
    page.wait_for_function("element => element.complete && element.naturalWidth === 40", arg=picture.element_handle())
    assert picture.get_attribute("alt") == "weir.png"
    assert chip.count() == 0
    answers(conversation, "complete").wait_for(timeout=PATIENCE)
    page.reload()
    again = panel(page, "a").locator(".message[data-role=user] img.picture")
    page.wait_for_function("element => element.complete && element.naturalWidth === 40", arg=again.element_handle())


def test_a_file_is_saved_as_it_was_sent(page: Page) -> None:
    conversation = opened(page)
    bring(conversation, "drop", "a\u202egpj.html", "text/html", b"<script>document.title = 'run'</script>")
    assert "\\u202e" in conversation.locator(".attached li").inner_text()
    send(conversation)
    saved = question(conversation).locator(".named button")
    saved.wait_for(timeout=PATIENCE)
    assert saved.inner_text().split() == ["a_gpj.html", "text/html"]
    with page.expect_download() as download:
        saved.click()
    assert download.value.suggested_filename == "a_gpj.html"
    assert download.value.path().read_bytes() == b"<script>document.title = 'run'</script>"
    assert page.title() != "run"


def test_a_long_paste_is_folded_and_a_short_one_is_not(page: Page) -> None:
    conversation = opened(page)
    assert not paste_text(conversation, "short")
    assert paste_text(conversation, WORDS)
    chip = conversation.locator(".attached li")
    assert "2,400 characters" in chip.inner_text()
    send(conversation, "Sum it up.")
    folded = question(conversation).locator("details.fold")
    folded.wait_for(timeout=PATIENCE)
    assert question(conversation).locator(".block").count() == 2
    assert folded.get_attribute("open") is None
    folded.locator("summary").click()
    assert folded.locator("pre").inner_text() == WORDS
    assert paste_text(conversation, WORDS)
    chip.locator("summary").click()
    chip.get_by_role("button", name="Put it into the message").click()
    assert chip.count() == 0
    assert conversation.locator(".composer textarea").input_value() == WORDS


def test_what_is_refused_comes_back_and_can_be_taken_off(page: Page, complaints: list[str]) -> None:
    conversation = opened(page)
    bring(conversation, "paste", "lie.png", "image/png", b"<html>")
    send(conversation, "What is this?")
    notice = conversation.locator(".notice")
    notice.get_by_text("does not begin as one").wait_for(timeout=PATIENCE)
    assert conversation.locator(".composer textarea").input_value() == "What is this?"
    chip = conversation.locator(".attached li")
    assert chip.count() == 1
    chip.get_by_role("button", name="Take lie.png off").click()
    assert chip.count() == 0
    send(conversation, "Never mind.")
    answers(conversation, "complete").wait_for(timeout=PATIENCE)
    complaints.remove("error: Failed to load resource: the server responded with a status of 400 ()")


def test_a_stop_takes_back_what_is_sent_with_a_file_that_is_still_on_its_way(page: Page, site: ServerProcess) -> None:
    conversation = opened(page)
    session_id = session_ids(page)["a"]
    page.route("**/files*", lambda _: None)  # it is never answered
    bring(conversation, "paste", "plan.txt", "text/plain", b"first, dig")
    send(conversation, "read this")
    expect(conversation.locator(".composer .attached li")).to_have_count(0)
    conversation.get_by_role("button", name="Stop").click()
    expect(conversation.locator(".notice")).to_contain_text("Stopped before it was sent")
    expect(conversation.locator(".composer .field")).to_have_value("read this")
    expect(conversation.locator(".composer .attached li")).to_contain_text("plan.txt")
    assert call(site.url, "GET", f"/v1/sessions/{session_id}")["messages"] == []
    page.unroute("**/files*")
    conversation.locator(".composer .field").press("Enter")
    expect(question(conversation)).to_contain_text("read this")
    expect(answers(conversation, "complete")).to_have_count(1)


def test_an_edited_message_keeps_what_is_attached(page: Page) -> None:
    conversation = opened(page)
    bring(conversation, "paste", "weir.png", "image/png", png())
    send(conversation, "What is this?")
    answers(conversation, "complete").wait_for(timeout=PATIENCE)
    question(conversation).hover()
    question(conversation).locator(".edit").click()
    editor = conversation.locator(".editor textarea")
    editor.fill("And what is this?")
    editor.press("Enter")
    conversation.get_by_text("And what is this?").first.wait_for(timeout=PATIENCE)
    assert question(conversation).locator("img.picture").count() == 1


CLIENT: Final = """async (content) => {
    const { Client, newId } = await import("./penstock.js");
    const session = new Client().session(newId());
    await session.create();
    const bytes = Uint8Array.from(atob(content), (each) => each.charCodeAt(0));
    const first = await session.keepFile(new File([bytes], "水.png", { type: "image/png" }));
    const again = await session.keepFile(new Blob([bytes], { type: "image/png" }), { filename: "水.png" });
    const nameless = await session.keepFile(new Blob([bytes]));
    const blob = await session.readFile(first.file_id);
    const read = new Uint8Array(await blob.arrayBuffer());
    const missing = await session.readFile("none").catch((problem) => problem.code);
    const message = { blocks: [{ kind: "image", file_id: first.file_id }] };
    const { message_id } = await session.start({ message });
    const { messages } = await session.fetchSnapshot();
    return {
      first, again, nameless, missing, type: blob.type,
      same: read.length === bytes.length && read.every((each, at) => each === bytes[at]),
      shown: messages.find((each) => each.message_id === message_id).blocks,
    };
}"""


def test_the_browsers_client_sends_and_reads_files(page: Page, complaints: list[str]) -> None:
    found = page.evaluate(CLIENT, base64.b64encode(png()).decode())
    assert found["first"] == found["again"]
    assert (found["first"]["media_type"], found["first"]["filename"]) == ("image/png", "水.png")
    assert found["nameless"]["media_type"] == "application/octet-stream"
    assert "filename" not in found["nameless"]
    assert (found["same"], found["type"], found["missing"]) == (True, "image/png", "NOT_FOUND")
    (block,) = found["shown"]
    assert (block["kind"], block["filename"]) == ("image", "水.png")
    complaints.remove("error: Failed to load resource: the server responded with a status of 404 ()")
